-- fetch(keys=[queue, bodies, bell], args=[count, composing]) -> [body, body, ...]
--
-- count: how many to take
-- composing: how many of them may be to compose; the rest are deliveries, which no busy responder holds up
--
-- Takes messages out for good. There is no acknowledgement in Redis: if the worker that took them dies, their turns'
-- due times in PostgreSQL bring them back, sooner than any heartbeat in Redis would.
--
-- A key of a wrong type is not ours, and would fail every command from now on: it is deleted.
for i, kind in ipairs({"list", "hash", "list"}) do
    local found = redis.call("type", KEYS[i]).ok
    if found ~= kind and found ~= "none" then
        redis.call("del", KEYS[i])
    end
end

-- An id without a body takes no message's place, or an intruder could fill the queue with such ids. The script skips 1,000
-- of them at most, since Redis serves no other client meanwhile.
local bodies = {}
local function take(id)
    local body = redis.call("hget", KEYS[2], id)
    if body then
        redis.call("hdel", KEYS[2], id)
        bodies[#bodies + 1] = body
    end
end
local count, composing = tonumber(ARGV[1]), tonumber(ARGV[2])
for _ = 1, composing + 1000 do
    local id = #bodies < composing and redis.call("lpop", KEYS[1])
    if not id then
        break
    end
    take(id)
end
-- Deliveries come from schedulers of the version before, among the first of the queue.
if composing < count then
    for _, id in ipairs(redis.call("lrange", KEYS[1], 0, 1999)) do
        if #bodies < count and string.sub(id, 1, 8) == "deliver:" then
            redis.call("lrem", KEYS[1], 1, id)
            take(id)
        end
    end
end
-- One ring may stand for many messages, and the worker that heard it takes no more than it has room for. The rest is for
-- another worker.
if redis.call("exists", KEYS[1]) == 1 then
    redis.call("lpush", KEYS[3], "1")
    redis.call("ltrim", KEYS[3], 0, 15)
    redis.call("expire", KEYS[3], 86400)
end
return bodies
