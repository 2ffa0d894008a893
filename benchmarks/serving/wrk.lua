-- Posts the lines of a file in turn: `wrk -s wrk.lua URL -- FILE`; prints what it saw as one line of JSON. What took longer
-- than wrk's timeout is no failure: it is slow, and the latencies say so.
local requests, turn = {}, 0

function init(arguments)
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["Accept"] = "application/json"
  for line in io.lines(arguments[1]) do
    requests[#requests + 1] = wrk.format(nil, nil, nil, line)
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "microseconds": %d, "bad_statuses": %d, "broken": %d, "p50_us": %d, "p95_us": %d}\n',
    summary.requests, summary.duration, errors.status, errors.connect + errors.read + errors.write,
    latency:percentile(50), latency:percentile(95)))
end
