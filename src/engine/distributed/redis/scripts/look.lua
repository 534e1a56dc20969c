-- KEYS: claims. Answers each one's fields, none where there is no such claim.

local answer = {}
for i = 1, #KEYS do answer[i] = view(KEYS[i]) end
return answer
