-- Fill one slot if the update is newer than what it holds, and tell those who wait on its box.
--
-- KEYS[1]  hash    the slot: epoch, incarnation, sequence
-- KEYS[2]  stream  the box's news
-- KEYS[3]  hash    the ledger: for each filled slot "<bytes> <when it expires, in ms since the Unix epoch>"
-- KEYS[4]  string  the slot's blob
-- KEYS[5]  string  where a large blob was staged, because passing it through Lua would copy it twice
-- ARGV[1..3]  epoch, incarnation, sequence of the update, whole numbers below 2^53 in decimal
-- ARGV[4]  the blob; empty if it is staged
-- ARGV[5]  the slot's time to live in milliseconds
-- ARGV[6]  the most bytes that all slots together may hold
--
-- Returns {outcome, epoch, incarnation, sequence}: outcome 1 if stored, 0 if the slot is as new or newer, -1 if
-- the mailbox has no room; then the stamp of what the slot holds now (empty strings if it holds nothing).

local held = redis.call('HMGET', KEYS[1], 'epoch', 'incarnation', 'sequence')

local function is_newer()
  for part = 1, 3 do
    local offered, present = tonumber(ARGV[part]), tonumber(held[part])
    if offered ~= present then
      return offered > present
    end
  end
  return false
end

if held[1] and not is_newer() then
  redis.call('DEL', KEYS[5])
  return {0, held[1], held[2], held[3]}
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local staged = #ARGV[4] == 0
local size, lifetime = staged and redis.call('STRLEN', KEYS[5]) or #ARGV[4], tonumber(ARGV[5])
local total = size
local ledger = redis.call('HGETALL', KEYS[3])
for field = 1, #ledger, 2 do
  local bytes, expires = string.match(ledger[field + 1], '(%d+) (%d+)')
  if tonumber(expires) <= now then
    redis.call('HDEL', KEYS[3], ledger[field])
  elseif ledger[field] ~= KEYS[1] then
    total = total + tonumber(bytes)
  end
end
if total > tonumber(ARGV[6]) then
  redis.call('DEL', KEYS[5])
  return {-1, held[1] or '', held[2] or '', held[3] or ''}
end

if staged then
  redis.call('RENAME', KEYS[5], KEYS[4])
  redis.call('PEXPIRE', KEYS[4], lifetime)
else
  redis.call('SET', KEYS[4], ARGV[4], 'PX', lifetime)
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'incarnation', ARGV[2], 'sequence', ARGV[3])
redis.call('PEXPIRE', KEYS[1], lifetime)
redis.call('HSET', KEYS[3], KEYS[1], string.format('%.0f %.0f', size, now + lifetime))
redis.call('PEXPIRE', KEYS[3], lifetime)
redis.call('XADD', KEYS[2], 'MAXLEN', 1, '*', 'slot', KEYS[1])
return {1, ARGV[1], ARGV[2], ARGV[3]}
