-- Stores an answer: the first writer wins, whatever its fence.
--
-- ARGV behind the entry's: generation, origin, hop, slot, value.
-- The value is sent back only where it is another one's.

local generation, origin, hop, name = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6]), ARGV[7]

return run(function()
  local e = read()
  if not e or e.phase == 'closed' or not same_chain(e, generation, origin) then return { 'own', 'stale', '0' } end
  local standing = e.hop <= hop and 'stands' or 'stale'
  local s = slot(name)
  if s.state == 'stored' then return { 'first', standing, tostring(s.times), s.value } end
  s.state, s.value = 'stored', ARGV[8]
  set_slot(name, s)
  return { 'own', standing, tostring(s.times) }
end)
