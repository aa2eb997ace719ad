-- push(keys=[queue, bodies, bell], args=[id, body, id, body, ...]) -> how many were put into the queue
--
-- An id that still waits in the queue is not put there again: pushing twice is free, so a push in doubt is simply
-- repeated, and turns pushed again while workers are behind do not multiply. A body whose id is gone from the queue (half
-- of the data was lost) is queued again. Fetching removes both.
--
-- A key of a wrong type is not ours, and would fail every command from now on: it is deleted.
for i, kind in ipairs({"list", "hash", "list"}) do
    local found = redis.call("type", KEYS[i]).ok
    if found ~= kind and found ~= "none" then
        redis.call("del", KEYS[i])
    end
end

-- As many ids as bodies: nothing was lost, and no id has to be looked for. In a queue of 100,000 each such look takes a
-- millisecond, and all of them are pushed again. If each half lost another one, the next fetch shows it.
local whole = redis.call("llen", KEYS[1]) == redis.call("hlen", KEYS[2])

local pushed = 0
for i = 1, #ARGV, 2 do
    local new = redis.call("hsetnx", KEYS[2], ARGV[i], ARGV[i + 1]) == 1
    if new or not (whole or redis.call("lpos", KEYS[1], ARGV[i])) then
        redis.call("rpush", KEYS[1], ARGV[i])
        pushed = pushed + 1
    end
end
-- One ring wakes one waiting process, which fetches many: a few are enough, however many messages there are.
redis.call("lpush", KEYS[3], "1")
redis.call("ltrim", KEYS[3], 0, 15)
-- The keys of an installation that is gone end by themselves after a day. While a turn is queued, the scheduler pushes it
-- again every 20 s at most, and each push begins the day anew.
for _, key in ipairs(KEYS) do
    redis.call("expire", key, 86400)
end
return pushed
