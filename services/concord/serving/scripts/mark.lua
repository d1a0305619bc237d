-- Say something of a version.
--
-- KEYS[1]  sorted set  the index of versions
-- KEYS[2]  stream      the shelf's news
-- KEYS[3]  hash        marks
-- ARGV[1]  pin, unpin, hold, promote or served
-- ARGV[2]  the version
-- ARGV[3]  how many versions may be pinned
--
-- Returns done; absent if there is no such version, or no such pin; full if so many are pinned.

local action, version = ARGV[1], ARGV[2]
local pin = 'pin:' .. version

if action == 'unpin' then
  local removed = redis.call('HDEL', KEYS[3], pin)
  if redis.call('HGET', KEYS[3], 'held') == version then
    removed = removed + redis.call('HDEL', KEYS[3], 'held')
  end
  if removed == 0 then
    return 'absent'
  end
elseif not redis.call('ZSCORE', KEYS[1], version) then
  return 'absent'
elseif action == 'served' then
  redis.call('HSET', KEYS[3], 'served', version)
  return 'done'
elseif action == 'hold' then
  redis.call('HSET', KEYS[3], 'held', version)
  redis.call('HDEL', KEYS[3], 'promoted', 'floor')
elseif action == 'promote' then
  local newest = redis.call('ZREVRANGE', KEYS[1], 0, 0)[1]
  redis.call('HSET', KEYS[3], 'promoted', version, 'floor', newest)
  redis.call('HDEL', KEYS[3], 'held')
elseif action == 'pin' then
  local pinned = 0
  for _, field in ipairs(redis.call('HKEYS', KEYS[3])) do
    if string.sub(field, 1, 4) == 'pin:' and field ~= pin then
      pinned = pinned + 1
    end
  end
  if pinned >= tonumber(ARGV[3]) then
    return 'full'
  end
  redis.call('HSET', KEYS[3], pin, 1)
end
redis.call('XADD', KEYS[2], 'MAXLEN', 1, '*', 'marked', version)
return 'done'
