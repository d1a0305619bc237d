-- Posts the file that BODY names; ends with one line of JSON for benchmarks/serving/load.py.
local file = assert(io.open(os.getenv("BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = "application/json"
file:close()

function done(summary, latency, requests)
   local failed = summary.errors
   io.write(string.format(
      '{"per_second": %f, "p50": %f, "p99": %f, "errors": %d}\n',
      summary.requests / (summary.duration / 1e6), latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
      failed.connect + failed.read + failed.write + failed.status + failed.timeout))
end
