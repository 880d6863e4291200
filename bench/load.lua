-- wrk's script, for one thread: sends prepared requests, in turn, until a deadline; prints "drained" as soon as all of
-- them are answered.
--
-- Arguments, each as name=value:
--   file      the prepared requests, as bench/encodings.py writes them
--   stamp     sequence: adds a producer and its next number, which closes the JSON object
--             time: overwrites each value and timestamp
--             none: sends the body as it is
--   seconds   how long new requests are sent
--   rate      requests a second, sent by the clock whatever is still unanswered; 0: as fast as answers come
--   metrics   what a request counts for where the answer does not say it
--
-- It prints one JSON object when wrk ends, by itself or after an interrupt.

local ffi = require("ffi")
ffi.cdef("typedef struct { long seconds, nanoseconds; } moment; int clock_gettime(int clock, moment *now);")

local REALTIME, MONOTONIC = 0, 1
local PRODUCERS = 256
local LATE_SECONDS = 0.01
local NEVER_MS = 3600 * 1000

local moment = ffi.new("moment")

local function seconds_of(clock)
  ffi.C.clock_gettime(clock, moment)
  return tonumber(moment.seconds) + tonumber(moment.nanoseconds) / 1e9
end

-- wrk calls `setup` and `done` in a Lua state of their own, which reads the thread's globals.
local sender

function setup(thread)
  sender = thread
end

sent, answered, accepted, in_time, late, most_late = 0, 0, 0, 0, 0, 0
began, due, drained = 0, 0, false
statuses = {}

local options = {}
local shots, stamp, deadline, pause, next_slot

local function random_uuid(random)
  local hex = random:read(16):gsub(".", function(byte) return string.format("%02x", byte:byte()) end)
  return string.format("%s-%s-4%s-8%s-%s", hex:sub(1, 8), hex:sub(9, 12), hex:sub(14, 16), hex:sub(18, 20), hex:sub(21))
end

local function head_of(path, key)
  local lines = { "POST " .. path .. " HTTP/1.1" }
  if key ~= "-" then
    table.insert(lines, "Authorization: Bearer " .. key)
  end
  for name, value in pairs(wrk.headers) do
    table.insert(lines, name .. ": " .. value)
  end
  return table.concat(lines, "\r\n") .. "\r\nContent-Length: "
end

local function read_shots(file)
  local found, heads = {}, {}
  for line in function() return file:read("*l") end do
    local words = line:gmatch("%S+")
    local path, key, length, samples = words(), words(), tonumber(words()), {}
    for offset in words do
      table.insert(samples, tonumber(offset))
    end
    local caller = path .. " " .. key
    heads[caller] = heads[caller] or head_of(path, key)
    local body = file:read(length)
    table.insert(found, { head = heads[caller], key = key, body = body, samples = samples, times = 0, last_ms = 0 })
  end
  return found
end

local stamps = {}

function stamps.none()
  return function(shot) return shot.body end
end

-- Producers belong to the callers, in equal parts, and take turns.
local function producers_by_key(random)
  local found, keys = {}, 0
  for _, shot in ipairs(shots) do
    if not found[shot.key] then
      found[shot.key] = { turn = 0 }
      keys = keys + 1
    end
  end
  for _, producers in pairs(found) do
    for index = 1, math.ceil(PRODUCERS / keys) do
      producers[index] = { tail = ',"producer":"' .. random_uuid(random) .. '","sequence":', sequence = 0 }
    end
  end
  return found
end

function stamps.sequence()
  local random = assert(io.open("/dev/urandom", "rb"))
  local by_key = producers_by_key(random)
  random:close()
  return function(shot)
    local producers = by_key[shot.key]
    producers.turn = producers.turn % #producers + 1
    local producer = producers[producers.turn]
    producer.sequence = producer.sequence + 1
    return shot.body .. producer.tail .. producer.sequence .. "}"
  end
end

function stamps.time()
  local value = ffi.new("double[1]")
  return function(shot)
    local body = shot.buffer
    if not body then
      body = ffi.new("uint8_t[?]", #shot.body)
      ffi.copy(body, shot.body, #shot.body)
      shot.buffer = body
    end
    shot.times = shot.times + 1
    shot.last_ms = math.max(math.floor(seconds_of(REALTIME) * 1000), shot.last_ms + 1)
    value[0] = shot.times
    for _, offset in ipairs(shot.samples) do
      ffi.copy(body + offset, value, 8)
      local rest = shot.last_ms
      for byte = offset + 9, offset + 13 do
        body[byte] = rest % 128 + 128
        rest = math.floor(rest / 128)
      end
      body[offset + 14] = rest
    end
    return ffi.string(body, #shot.body)
  end
end

function init(arguments)
  for _, argument in ipairs(arguments) do
    local name, value = argument:match("^(%l+)=(.*)$")
    options[name] = tonumber(value) or value
  end
  local file = assert(io.open(options.file, "rb"))
  shots = read_shots(file)
  file:close()
  stamp = stamps[options.stamp]()
  pause = options.rate > 0 and 1 / options.rate or 0
end

-- How long the connection that asks must wait until it sends, in milliseconds.
function delay()
  local now = seconds_of(MONOTONIC)
  if began == 0 then
    began, deadline, next_slot = now, now + options.seconds, now
  end
  local slot = pause > 0 and next_slot or now
  if slot >= deadline then
    if answered == due and not drained then
      drained = true
      io.write("drained\n")
      io.flush()
    end
    return NEVER_MS
  end
  next_slot = slot + pause
  due = due + 1
  return math.max(0, math.floor((slot - now) * 1000))
end

-- Whether no connection was free at a request's time, or this process was held up.
local function note_lateness(behind_seconds)
  if pause > 0 and behind_seconds > LATE_SECONDS then
    late = late + 1
    most_late = math.max(most_late, behind_seconds)
  end
end

function request()
  if began == 0 then -- wrk looks at one that it does not send
    return shots[1].head .. "0\r\n\r\n"
  end
  note_lateness(seconds_of(MONOTONIC) - (began + sent * pause))
  local shot = shots[sent % #shots + 1]
  sent = sent + 1
  local body = stamp(shot)
  return shot.head .. #body .. "\r\n\r\n" .. body
end

function response(status, _, body)
  answered = answered + 1
  statuses[status] = (statuses[status] or 0) + 1
  if status < 300 then
    local count = tonumber(body:match('"accepted":%s*(%d+)')) or options.metrics
    accepted = accepted + count
    if seconds_of(MONOTONIC) <= deadline then
      in_time = in_time + count
    end
  end
end

function done(summary, latency)
  local rendered, counts = {}, {}
  for status, count in pairs(sender:get("statuses")) do
    table.insert(counts, string.format('"%d":%d', status, count))
  end
  for _, name in ipairs({ "sent", "answered", "accepted", "in_time", "late", "most_late", "began" }) do
    table.insert(rendered, string.format('"%s":%.6f', name, sender:get(name)))
  end
  for _, name in ipairs({ "connect", "read", "write", "timeout" }) do
    table.insert(rendered, string.format('"%s_errors":%d', name, summary.errors[name]))
  end
  for _, percentile in ipairs({ 50, 95, 99 }) do
    table.insert(rendered, string.format('"p%d_us":%d', percentile, latency:percentile(percentile)))
  end
  io.write("{" .. table.concat(rendered, ",") .. ',"statuses":{' .. table.concat(counts, ",") .. "}}\n")
end
