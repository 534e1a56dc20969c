-- Open claims in the order of their scopes.
--
-- KEYS: the index. ARGV: what the key of a claim begins with, the scope to begin behind or nothing, how many.
-- Answers each scope's text and its fields, in turn.

local from = ARGV[2] == '' and '-' or '(' .. ARGV[2]
local answer = {}
for _, scope in ipairs(redis.call('ZRANGEBYLEX', KEYS[1], from, '+', 'LIMIT', 0, ARGV[3])) do
  answer[#answer + 1] = scope
  answer[#answer + 1] = view(ARGV[1] .. scope)
end
return answer
