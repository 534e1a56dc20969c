-- Reads and writes the entry of one scope; every script that may change one begins with this.
--
-- KEYS: the claim, the index of open claims. ARGV: the scope's text, the dedupe window in ms, and the
-- time in ms, which only tests give; otherwise it is the server's own. Random numbers come as arguments.
--
-- Numbers that may not fit a double (offsets, time stamps of records) are never computed with here:
-- they stay texts, and are compared as such.

local claim, open = KEYS[1], KEYS[2]
local scope, window, now = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Of heads and of slots: raise it with any change of what is written, and keep reading the old one.
local VERSION = '1'
-- An instance that never lives, a nonce that names no delivery.
local NOBODY = string.rep('0', 32)

local function unreadable(what, version)
  error({ 'unreadable', what, version })
end

-- The body reads the entry and its slots before it writes to them: what cannot be read stays as it is.
local function run(body)
  local whole, answer = pcall(body)
  if whole or (type(answer) == 'table' and answer[1] == 'unreadable') then return answer end
  error(answer)
end

-- Whether there is an entry: known once it was read, and every script reads before it writes.
local there = false

-- The head, or nil where there is none or its window is over.
local function read()
  local f = redis.call('HMGET', claim, 'v', 'g', 'o', 'h', 'r', 'd', 'f', 'by', 'p', 'k', 'at', 's', 'c')
  if not f[1] then return nil end
  there = true
  if f[1] ~= VERSION then unreadable('claim', f[1]) end
  local e = {
    generation = tonumber(f[2]), origin = f[3], hop = tonumber(f[4]), rule = f[5], digest = f[6],
    fence = f[7], decider = f[8], phase = f[9], outcome = f[10], at = f[11], since = f[12], changed = f[13],
  }
  if e.phase == 'closed' and tonumber(e.changed) + window <= now then
    redis.call('DEL', claim)
    return nil
  end
  return e
end

local function ms(number)
  return string.format('%.0f', number)
end

-- Writes the head. What is closed expires by itself and is not in the index.
local function put(e)
  if e.phase == 'closed' then
    redis.call('HSET', claim, 'v', VERSION, 'g', e.generation, 'o', e.origin, 'h', e.hop, 'r', e.rule,
      'd', e.digest, 'f', e.fence, 'p', e.phase, 's', e.since, 'c', e.changed, 'k', e.outcome, 'at', e.at)
    redis.call('PEXPIRE', claim, ms(window))
    redis.call('ZREM', open, scope)
  else
    redis.call('HSET', claim, 'v', VERSION, 'g', e.generation, 'o', e.origin, 'h', e.hop, 'r', e.rule,
      'd', e.digest, 'f', e.fence, 'p', e.phase, 's', e.since, 'c', e.changed)
    redis.call('ZADD', open, 0, scope)
  end
  if e.decider then
    redis.call('HSET', claim, 'by', e.decider)
  elseif there then
    redis.call('HDEL', claim, 'by')
  end
end

-- In place of whatever is there, its slots too.
local function replace(e)
  if there then redis.call('DEL', claim) end
  there = false
  put(e)
end

local function parse(text)
  local version = string.match(text, '^(%d+) ')
  if version ~= VERSION then unreadable('slot', version or '?') end
  local state, times, deaths, rest = string.match(text, '^%d+ (%l+) (%d+) (%d+) ?(.*)$')
  if not state then unreadable('slot', '?') end
  local s = { state = state, times = tonumber(times), deaths = tonumber(deaths) }
  if state == 'started' then
    s.instance, s.nonce, s.ends, s.doubt = string.match(rest, '^(%x+) (%x+) (%-?%d+) ([01])$')
    if not s.doubt then unreadable('slot', '?') end
  elseif state == 'stored' then
    s.value = rest
  end
  return s
end

-- A slot that is not there is free and counts nothing.
local function slot(name)
  local text = redis.call('HGET', claim, '#' .. name)
  if not text then return { state = 'free', times = 0, deaths = 0 } end
  return parse(text)
end

local function set_slot(name, s)
  if s.state == 'free' and s.times == 0 and s.deaths == 0 then
    redis.call('HDEL', claim, '#' .. name)
    return
  end
  local text = VERSION .. ' ' .. s.state .. ' ' .. s.times .. ' ' .. s.deaths
  if s.state == 'started' then
    text = text .. ' ' .. s.instance .. ' ' .. s.nonce .. ' ' .. s.ends .. ' ' .. s.doubt
  elseif s.state == 'stored' then
    text = text .. ' ' .. s.value
  end
  redis.call('HSET', claim, '#' .. name, text)
end

-- Every slot by its name.
local function slots()
  local all, found = redis.call('HGETALL', claim), {}
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 1) == '#' then found[string.sub(all[i], 2)] = parse(all[i + 1]) end
  end
  return found
end

-- Gives back what the nonce started, and counts what was sent unheard; what is in doubt is left as if its owner had
-- died.
local function release(nonce, unheard)
  for name, s in pairs(slots()) do
    if s.state == 'started' and s.nonce == nonce then
      if s.doubt == '1' then
        s.instance, s.nonce = NOBODY, NOBODY
      else
        s.state, s.times = 'free', s.times + unheard
      end
      set_slot(name, s)
    end
  end
end

-- A new hop is a new question: nobody decides it yet, and what was barred is free again.
local function rise(e, hop, all)
  e.hop, e.decider = hop, nil
  for name, s in pairs(all) do
    if s.state == 'barred' then
      s.state = 'free'
      set_slot(name, s)
    end
  end
end

local function same_chain(e, generation, origin)
  return e.generation == generation and e.origin == origin
end
