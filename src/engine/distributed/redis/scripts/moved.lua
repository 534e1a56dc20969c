-- A chain has moved on to a hop. The fence is held by nobody, so that a delivery of the hop before cannot
-- go on in slots that belong to the next one.
--
-- ARGV behind the entry's: generation, origin, hop, rule, digest, fence, phase.

local generation, origin, hop = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local fence, phase = ARGV[9], ARGV[10]

return run(function()
  local e = read()
  if e and same_chain(e, generation, origin) and e.phase ~= 'closed' and hop > e.hop then
    rise(e, hop, slots())
    e.phase, e.fence, e.changed = phase, fence, ms(now)
    put(e)
  elseif not e or e.generation < generation then
    replace({
      generation = generation, origin = origin, hop = hop, rule = ARGV[7], digest = ARGV[8], fence = fence,
      phase = phase, since = ms(now), changed = ms(now),
    })
  end
  return { 'done' }
end)
