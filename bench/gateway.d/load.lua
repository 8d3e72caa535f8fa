-- What wrk sends, and what it prints at the end: one line of JSON. BODY is a file; HEADERS a file of "Name: value" lines.
local function slurp(name)
  local f = assert(io.open(name))
  local s = f:read("*a")
  f:close()
  return s
end

wrk.method = "POST"
wrk.body = slurp(os.getenv("BODY"))
for name, value in slurp(os.getenv("HEADERS")):gmatch("([%w-]+): ([^\n]+)") do
  wrk.headers[name] = value
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '{"requests":%d,"us":%d,"errors":%d,"p50":%d,"p99":%d}\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
