"""Each part of the library on its own, named on the command line."""
import sys

COUNT = int(__import__("os").environ["COUNT"])


def text():
    import json, re, string, textwrap, difflib, hashlib, base64, zlib, struct, csv, io
    data = [{"id": i, "name": f"item {i}", "tags": ["a", None, True, i / 7], "nested": {"x": i**3}} for i in range(COUNT)]
    dumped = json.dumps(data, sort_keys=True)
    assert json.loads(dumped) == data
    print(len(dumped), hashlib.sha256(dumped.encode()).hexdigest(), zlib.crc32(dumped.encode()))
    print(len(re.findall(r'"id": (\d*[02468]),', dumped)), re.sub(r"(\w+) (\d+)", r"\2-\1", dumped)[:80])
    print(re.match(r"(?P<y>\d{4})-(?P<m>\d\d)", "2024-05-06").groupdict(), re.split(r"[,;]\s*", "a, b;c;  d"))
    print(base64.b64encode(zlib.compress(dumped.encode(), 9)[:30]), struct.pack("<IhQd", 1, -2, 3, 4.5).hex())
    print("\n".join(difflib.unified_diff("a b c d".split(), "a x c d e".split(), lineterm="")))
    print(textwrap.fill("the quick brown fox jumps over the lazy dog " * 3, 40))
    out = io.StringIO()
    csv.writer(out).writerows([["a", 'q"uote', 1.5], ["new\nline", None, -0.0]])
    print(repr(out.getvalue()), string.Template("$a-$b").substitute(a=1, b=2), f"{3.14159:>10.3f}|{1234567:,}|{255:#x}")


def numbers():
    import decimal, fractions, math, random, statistics, datetime, itertools, functools, collections
    decimal.getcontext().prec = 60
    print(decimal.Decimal(2).sqrt(), decimal.Decimal(1) / 7, decimal.Decimal("1e-30") + 1)
    print(sum(fractions.Fraction(1, n) for n in range(1, 40)), math.comb(100, 50), pow(3, 1000, 10**9 + 7))
    print(math.factorial(COUNT // 4) % (10**9 + 7), 2**521 - 1, int("9" * 50) // 12345678901234567890)
    random.seed(42)
    values = [random.gauss(0, 1) for _ in range(COUNT)]
    print(statistics.mean(values), statistics.stdev(values), random.sample(range(100), 5))
    print([f(0.7) for f in (math.sin, math.cos, math.tan, math.exp, math.log, math.erf, math.gamma, math.tanh)])
    print(0.1 + 0.2, 1e308 * 10, float("nan"), -0.0, round(2.5), (1.5).hex(), 7 // -2, -7 % 3, divmod(-7.5, 2))
    print(datetime.datetime(2024, 2, 29) + datetime.timedelta(days=366), datetime.date(2023, 11, 14).isocalendar())
    print(list(itertools.islice(itertools.permutations("abcd"), 5)), functools.reduce(lambda a, b: a * 31 + b, range(20)))
    print(collections.Counter("mississippi").most_common(), complex(1, 2) ** 3)


def threads():
    import threading, queue, concurrent.futures
    todo, total, lock = queue.Queue(), [0], threading.Lock()

    def work():
        while (n := todo.get()) is not None:
            with lock:
                total[0] += sum(i * i for i in range(n))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for n in range(COUNT // 4):
        todo.put(n)
    for _ in workers:
        todo.put(None)
    for worker in workers:
        worker.join()
    print(total[0])
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        print(sum(pool.map(lambda n: n % 7, range(COUNT // 2))))
    event, local = threading.Event(), threading.local()
    threading.Timer(0.05, event.set).start()
    print(event.wait(30), hasattr(local, "x"))
    barrier = threading.Barrier(3)
    waiting = [threading.Thread(target=barrier.wait) for _ in range(2)]
    [thread.start() for thread in waiting]
    barrier.wait(30)
    [thread.join() for thread in waiting]
    print("all past the barrier")


def processes():
    import os, signal, subprocess, multiprocessing, tempfile, time
    print(subprocess.run(["sort", "-n"], input=b"10\n9\n1\n", capture_output=True).stdout)
    print(subprocess.check_output("echo $((6*7)); exit 0", shell=True), subprocess.call(["false"]))
    try:
        subprocess.run(["sleep", "30"], timeout=2)
    except subprocess.TimeoutExpired as error:
        print("timed out", error.cmd)
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        print(pool.map(abs, [-1, -2, 3]))
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(writer, b"from the child")
        os._exit(5)
    print(os.read(reader, 100), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    seen = []
    signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    os.kill(os.getpid(), signal.SIGUSR1)
    print(seen, os.uname().machine)
    signal.signal(signal.SIGALRM, lambda *_: seen.append("alarm"))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    while "alarm" not in seen:
        time.sleep(0.01)
    print(seen)
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * 100000)
        print(file.tell(), os.fstat(file.fileno()).st_size)


def database():
    import sqlite3
    db = sqlite3.connect("python.db")
    db.execute("create table t (id integer primary key, name text, value real)")
    db.executemany("insert into t values (?, ?, ?)", ((i, f"n{i % 97}", i / 3) for i in range(COUNT * 5)))
    db.execute("create index i on t (name, value)")
    db.commit()
    print(db.execute("select name, count(*), sum(value) from t group by name order by 3 desc limit 4").fetchall())
    db.create_function("twice", 1, lambda x: x * 2)
    print(db.execute("select twice(id), upper(name) from t where id between 10 and 12").fetchall())
    db.close()


def network():
    import asyncio, selectors, socket, threading, http.server, urllib.request, socketserver

    class Echo(socketserver.StreamRequestHandler):
        def handle(self):
            for line in self.rfile:
                self.wfile.write(line.upper())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with socket.create_connection(server.server_address) as client:
            for i in range(50):
                client.sendall(f"line {i}\n".encode())
            client.shutdown(socket.SHUT_WR)
            got = b"".join(iter(lambda: client.recv(4096), b""))
        print(got.count(b"LINE"), got[-8:])
        server.shutdown()

    class Hello(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello " + self.path.encode())

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Hello) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(urllib.request.urlopen(f"http://127.0.0.1:{server.server_address[1]}/path").read())
        server.shutdown()

    async def talk():
        async def serve(reader, writer):
            writer.write((await reader.readline())[::-1])
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            async def ask(n):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(f"message {n}\n".encode())
                answer = await reader.read()
                writer.close()
                return answer
            print(await asyncio.gather(*(ask(n) for n in range(5))))

    asyncio.run(talk())
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    left.send(b"datagram")
    print(right.recv(100), type(selectors.DefaultSelector()).__name__)


for part in sys.argv[1:]:
    print("==", part)
    globals()[part]()
