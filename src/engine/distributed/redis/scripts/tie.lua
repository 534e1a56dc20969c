-- Ties the store to a log and a group, where it is tied to none. For the start, and for looks now and then.
--
-- KEYS: the log, the tie. ARGV: log and group, a new tie.
-- Answers what it is tied to, since which tie, and whether it was tied to nothing.

local bound, tie = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
local new = not bound
if new then
  bound, tie = ARGV[1], nil
  redis.call('SET', KEYS[1], bound)
end
-- Whoever had emptied the store and tied it again without one knew of none.
if not tie then
  tie = ARGV[2]
  redis.call('SET', KEYS[2], tie)
end
return { bound, tie, new and 'new' or 'known' }
