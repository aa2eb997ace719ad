-- fetch(keys=[queue, bodies], args=[count]) -> [body, body, ...]
--
-- Takes messages out for good. There is no acknowledgement in Redis: if the worker that took them dies, their turns'
-- due times in PostgreSQL bring them back, sooner than any heartbeat in Redis would.
local bodies = {}
for _ = 1, tonumber(ARGV[1]) do
    local id = redis.call("lpop", KEYS[1])
    if not id then
        break
    end
    local body = redis.call("hget", KEYS[2], id)
    if body then
        redis.call("hdel", KEYS[2], id)
        bodies[#bodies + 1] = body
    end
end
return bodies
