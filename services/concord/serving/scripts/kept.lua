-- Shared by the scripts of the shelf: the marks that keep a version, as `Marks.kept` has them.
--
-- The hash of marks: `pin:<version>`, `held`, `promoted` and `floor`, `served`; versions are decimal.

local function is_kept(marks, version)
  if redis.call('HEXISTS', marks, 'pin:' .. version) == 1 then
    return true
  end
  local said = redis.call('HMGET', marks, 'held', 'served', 'promoted', 'floor')
  if said[1] == version or said[2] == version then
    return true
  end
  return said[3] == version and (not said[2] or tonumber(said[2]) <= tonumber(said[4]))
end

local function take_down(index, hashes, version)
  redis.call('DEL', hashes[version])
  redis.call('ZREM', index, version)
end
