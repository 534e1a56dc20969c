-- What look-ups show of a claim: every field, but of stored answers only that they are there.

local function view(key)
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 1) == '#' then
      all[i + 1] = string.match(all[i + 1], '^%d+ stored %d+ %d+ ') or all[i + 1]
    end
  end
  return all
end
