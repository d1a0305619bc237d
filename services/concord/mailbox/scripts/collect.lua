-- Read those slots that hold something newer than what the caller has seen.
--
-- KEYS[2i-1]  hash    a slot: epoch, incarnation, sequence
-- KEYS[2i]    string  its blob
-- ARGV[3i-2..3i]      epoch, incarnation, sequence of what was seen of slot i, decimal; -1 three times for nothing
-- ARGV[last]          the most bytes of a blob that is returned here; passing a longer one through Lua would copy it twice
--
-- Returns one element per slot: false if it holds nothing newer, else {epoch, incarnation, sequence, blob}, the blob
-- empty if it is to be fetched.

local most = tonumber(ARGV[#ARGV])

local function is_newer(held, first)
  for part = 1, 3 do
    local present, seen = tonumber(held[part]), tonumber(ARGV[first + part])
    if present ~= seen then
      return present > seen
    end
  end
  return false
end

local found = {}
for index = 1, #KEYS / 2 do
  local slot, blob = KEYS[2 * index - 1], KEYS[2 * index]
  local held = redis.call('HMGET', slot, 'epoch', 'incarnation', 'sequence')
  found[index] = false
  if held[1] and is_newer(held, 3 * (index - 1)) then
    held[4] = redis.call('STRLEN', blob) <= most and redis.call('GET', blob) or ''
    found[index] = held
  end
end
return found
