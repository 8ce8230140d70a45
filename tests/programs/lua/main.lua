-- Tables, closures, coroutines, strings, integers and floats, and a small sieve.
local limit = tonumber(os.getenv("LIMIT"))
local sieve, primes = {}, {}
for i = 2, limit do
    if not sieve[i] then
        primes[#primes + 1] = i
        for j = i * i, limit, i do sieve[j] = true end
    end
end
print(#primes, primes[#primes])
local function counter() local n = 0; return function() n = n + 1; return n end end
local a, b = counter(), counter(); a(); a(); b(); print(a(), b())
local generate = coroutine.wrap(function() for i = 1, 5 do coroutine.yield(i * i) end end)
print(generate(), generate(), generate())
print(("key=value, other=thing"):gsub("(%w+)=(%w+)", "%2=%1"))
for word in ("the quick brown fox"):gmatch("%a+") do io.write(word:reverse(), " ") end print()
print(string.format("%5.2f|%-5d|%05d|%x|%q|%a", math.pi, 42, 42, 255, "a\nb", 0.5))
print(7 // 2, -7 // 2, 7 % -3, 7.5 // 2, 1 << 62, 5 // 0.0, -5 % math.huge, 3 | 12, ~0, 2 ^ 0.5)
print(math.maxinteger + 1 == math.mininteger, math.type(1), math.type(1.0), 1e15, 2 ^ 53, 10 / 2)
local meta = setmetatable({}, { __index = function(_, key) return key .. "!" end, __add = function() return "added" end })
print(meta.hello, meta + 1, #"string", rawlen({ 1, 2, 3 }))
print(pcall(error, { code = 7 }), select("#", 1, nil, 3), table.concat({ 1, 2, 3 }, "-"))
local list = {}
local state = 1
for i = 1, 2000 do state = (state * 16807) % 2147483647; list[i] = state end
table.sort(list); print(list[1], list[1000], list[2000])
print(string.pack("<i4d", 7, 1.5):byte(1, -1)); print(utf8.char(228, 8364), utf8.len("äöü"))
print(load("return 6 * 7")(), tostring(nil), tostring(1 / 0), tostring(-0.0))
local total = 0.0
for i = 1, limit do total = total + math.sin(i) * math.sqrt(i) end
print(string.format("%.9f", total))
collectgarbage()
