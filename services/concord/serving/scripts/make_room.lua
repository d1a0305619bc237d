-- Take down the oldest snapshot that may go: not the newest, nor one that marks keep.
--
-- KEYS[1]  sorted set  the index of versions
-- KEYS[2]  hash        marks
-- KEYS[3..]  hash      the snapshots on the shelf but the newest, oldest first
-- ARGV[1..]  the versions of KEYS[3..]
--
-- Returns 1, or 0 if none may go.

local hashes = {}
for position, version in ipairs(ARGV) do
  hashes[version] = KEYS[position + 2]
  if not is_kept(KEYS[2], version) then
    take_down(KEYS[1], hashes, version)
    return 1
  end
end
return 0
