-- Lay one snapshot on the shelf, tell those who wait, and take down the oldest beyond the shelf's capacity.
--
-- KEYS[1]  sorted set  the index of versions
-- KEYS[2]  stream      the shelf's news
-- KEYS[3]  hash        marks
-- KEYS[4]  hash        the new snapshot: about, blob
-- KEYS[5..]  hash      the other snapshots on the shelf
-- ARGV[1]  the version
-- ARGV[2]  about, a JSON text
-- ARGV[3]  the blob
-- ARGV[4]  the capacity: so many newest stay, and those that marks keep
-- ARGV[5..]  the versions of KEYS[5..]
--
-- Returns the number of snapshots on the shelf. With Redis full the first write fails and nothing has happened.

redis.call('HSET', KEYS[4], 'about', ARGV[2], 'blob', ARGV[3])
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[1])
redis.call('XADD', KEYS[2], 'MAXLEN', 1, '*', 'version', ARGV[1])
local hashes = {[ARGV[1]] = KEYS[4]}
for position = 5, #KEYS do
  hashes[ARGV[position]] = KEYS[position]
end
for _, version in ipairs(redis.call('ZREVRANGE', KEYS[1], ARGV[4], -1)) do
  if hashes[version] and not is_kept(KEYS[3], version) then
    take_down(KEYS[1], hashes, version)
  end
end
return redis.call('ZCARD', KEYS[1])
