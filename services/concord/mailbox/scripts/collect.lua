-- Read those slots that hold something newer than what the caller has seen.
--
-- KEYS[i]  hash  a slot: epoch, incarnation, sequence, blob
-- ARGV[3i-2..3i]  epoch, incarnation, sequence of what was seen of KEYS[i], decimal; -1 three times for nothing
--
-- Returns one element per key: false if the slot holds nothing newer, else {epoch, incarnation, sequence, blob}.

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
for index, key in ipairs(KEYS) do
  local held = redis.call('HMGET', key, 'epoch', 'incarnation', 'sequence')
  found[index] = false
  if held[1] and is_newer(held, 3 * (index - 1)) then
    held[4] = redis.call('HGET', key, 'blob')
    found[index] = held
  end
end
return found
