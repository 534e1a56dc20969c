-- Asks to end, to be refused or to ask a person without this effect.
--
-- ARGV behind the entry's: fence, nonce, slot.

local fence, nonce, name = ARGV[4], ARGV[5], ARGV[6]

return run(function()
  local e = read()
  if not e or e.phase == 'closed' or e.fence ~= fence then return { 'stale' } end
  local s = slot(name)
  local mine_in_doubt = s.state == 'started' and s.nonce == nonce and s.doubt == '1'
  if not (s.state == 'free' or s.state == 'barred' or mine_in_doubt) then return { 'busy' } end
  s.state = 'barred'
  set_slot(name, s)
  return { 'barred' }
end)
