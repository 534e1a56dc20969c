-- On every orderly exit: gives back what a nonce started and does not wait for, whatever the fence.
--
-- ARGV behind the entry's: nonce, how many requests were sent whose end nobody has heard.

return run(function()
  if read() then release(ARGV[4], tonumber(ARGV[5])) end
  return { 'done' }
end)
