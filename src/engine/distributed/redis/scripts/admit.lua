-- Admission of a token, and refusal of one: the rows of the table in `claims`, the first that fits.
--
-- KEYS behind the entry's: the mark of this refused origin.
-- ARGV behind the entry's: admit or refuse, generation, origin, hop, whether it is of generation 0 or
-- carries proof, fence, nonce, decider or nothing, then pairs of a rule and the payload's digest under it
-- (nothing where the rule does not apply). Where the entry's rule is not among them the answer is `rule`,
-- and nothing has changed.

local refusing = ARGV[4] == 'refuse'
local generation, origin, hop, proved = tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7]), ARGV[8] == '1'
local fence, nonce, decider = ARGV[9], ARGV[10], ARGV[11] ~= '' and ARGV[11] or nil

-- nil: its rule is not among those that were given.
local function differs(e)
  for i = 12, #ARGV, 2 do
    if ARGV[i] == e.rule then return ARGV[i + 1] ~= e.digest end
  end
  return nil
end

local function is_refused()
  local at = redis.call('GET', KEYS[3])
  return at and tonumber(at) + window > now
end

-- While a decision is worked on, the task still waits for a person.
local phase = decider and 'waiting' or 'open'

local function fresh()
  replace({
    generation = generation, origin = origin, hop = hop, rule = ARGV[12], digest = ARGV[13], fence = fence,
    decider = decider, phase = phase, since = ms(now), changed = ms(now),
  })
  return { 'fresh' }
end

local function resume(e)
  local all = slots()
  if hop > e.hop then rise(e, hop, all) end
  e.decider = decider or e.decider
  e.phase, e.fence, e.changed = phase, fence, ms(now)
  put(e)
  local answer = { 'resumed' }
  for name, s in pairs(all) do
    if s.state == 'stored' then
      answer[#answer + 1] = name
      answer[#answer + 1] = s.value
      answer[#answer + 1] = tostring(s.times)
    end
  end
  return answer
end

local function own_chain(e)
  if e.phase == 'closed' then return { 'silent', 'done', e.outcome, e.at } end
  if hop < e.hop then return { 'silent', 'moved' } end
  -- A hop that rises has no decider yet.
  if e.decider and decider and e.decider ~= decider and hop == e.hop then return { 'told', e.decider } end
  return resume(e)
end

local function silence_of_copy(e)
  return { 'silent', e.generation > generation and 'older' or 'duplicate' }
end

local function rows(e)
  if hop == 0 and is_refused() then return { 'refused' } end
  if not e then
    if proved then return fresh() end
    return { 'invalid' }
  end
  if same_chain(e, generation, origin) then return own_chain(e) end
  local different = differs(e)
  if different == nil then return { 'rule', e.rule } end
  -- Before generations are compared: a stranger of an older generation is no duplicate.
  if different then return { 'conflict' } end
  if e.generation < generation then
    if e.phase == 'closed' or proved then return fresh() end
    return { 'invalid' }
  end
  return silence_of_copy(e)
end

local function refuse(e)
  if hop > 0 or (e and same_chain(e, generation, origin)) then return rows(e) end
  if e and e.generation >= generation then
    local different = differs(e)
    if different == nil then return { 'rule', e.rule } end
    -- A copy of what is there already is no news.
    if not different then return silence_of_copy(e) end
  end
  -- Leaves word, so that a late admission of the same record by another process finds out.
  if not is_refused() then redis.call('SET', KEYS[3], ms(now), 'PX', ms(window)) end
  return { 'refused' }
end

return run(function()
  local e = read()
  local verdict = (refusing and refuse or rows)(e)
  if e and verdict[1] ~= 'fresh' and verdict[1] ~= 'resumed' and verdict[1] ~= 'rule' then
    release(nonce, 0)
  end
  return verdict
end)
