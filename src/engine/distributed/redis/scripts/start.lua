-- Asks to make a call or run an effect.
--
-- ARGV behind the entry's: fence, nonce, instance, slot, its kind, how long from now the grant lasts in ms,
-- whether the asking process is settled, and what the key of a heartbeat begins with.

local fence, nonce, instance, name, kind = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local ends, settled, beat = ms(now + ARGV[9]), ARGV[10] == '1', ARGV[11]
-- How long who is told `busy` waits before it asks again.
local BUSY_MIN, BUSY_MAX = 20, 1000

local function go(s, doubt, again)
  s.state, s.instance, s.nonce, s.ends, s.doubt = 'started', instance, nonce, ends, doubt
  set_slot(name, s)
  if doubt == '1' then return { 'unknown' } end
  return { 'go', again, tostring(s.times), tostring(s.deaths) }
end

return run(function()
  local e = read()
  if not e or e.phase == 'closed' or e.fence ~= fence then return { 'stale' } end
  local s = slot(name)
  if s.state == 'stored' then return { 'done', s.value, tostring(s.times) } end
  if s.state == 'barred' then return { 'barred' } end
  if s.state == 'free' then return go(s, '0', '0') end
  -- A lost reply. What was in doubt stays so.
  if s.nonce == nonce then return go(s, s.doubt, '0') end
  local theirs, nobody = tonumber(s.ends), s.instance == NOBODY
  local lapsed = s.instance ~= instance and (nobody or redis.call('EXISTS', beat .. s.instance) == 0)
  if not settled or not (lapsed or theirs <= now) then
    return { 'busy', ms(math.max(BUSY_MIN, math.min(BUSY_MAX, theirs - now))) }
  end
  if lapsed and not nobody then s.deaths = s.deaths + 1 end
  if kind == 'effect' then return go(s, '1', '0') end
  s.times = s.times + 1
  return go(s, '0', '1')
end)
