-- Lay one snapshot on the shelf, tell those who wait, and take down the ones it replaces.
--
-- KEYS[1]  sorted set  the index of versions
-- KEYS[2]  stream      the shelf's news
-- KEYS[3]  hash        the new snapshot: about, blob
-- KEYS[4..]  hash      the snapshots to take down
-- ARGV[1]  the version
-- ARGV[2]  about, a JSON text
-- ARGV[3]  the blob
-- ARGV[4..]  the versions to take down, in the order of KEYS[4..]
--
-- Returns the number of snapshots on the shelf. With Redis full the first write fails and nothing has happened.

redis.call('HSET', KEYS[3], 'about', ARGV[2], 'blob', ARGV[3])
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[1])
redis.call('XADD', KEYS[2], 'MAXLEN', 1, '*', 'version', ARGV[1])
for position = 4, #KEYS do
  redis.call('DEL', KEYS[position])
  redis.call('ZREM', KEYS[1], ARGV[position])
end
return redis.call('ZCARD', KEYS[1])
