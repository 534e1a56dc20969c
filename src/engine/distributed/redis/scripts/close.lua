-- The outcome of a chain is visible. Never opens what is closed, says nothing to another chain.
--
-- ARGV behind the entry's: generation, origin, hop, rule, digest, fence, kind of outcome, position.

local generation, origin, hop = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])

return run(function()
  local e = read()
  local new = { generation = generation, origin = origin, hop = hop, rule = ARGV[7], digest = ARGV[8], since = ms(now) }
  if e and same_chain(e, generation, origin) and e.phase ~= 'closed' then
    new.hop, new.rule, new.digest, new.since = math.max(e.hop, hop), e.rule, e.digest, e.since
  elseif e and e.generation >= generation then
    return { 'done' }
  end
  new.fence, new.phase, new.outcome, new.at, new.changed = ARGV[9], 'closed', ARGV[10], ARGV[11], ms(now)
  replace(new)
  return { 'done' }
end)
