"""Runs in a pod beside the inference service: keeps asking it, and prints what came of it as a JSON object.

Arguments: host, port, connections, seconds. INFERENCE_TOKEN in the environment. Each connection is opened anew every
second, so that pods that came up meanwhile get their share.
"""

import asyncio
import json
import os
import sys
import time

TEXTS = [
    "分量足，味道好，下次还来",
    "等了一个小时，菜是凉的，服务也差",
    "一般般，不推荐也不反对，看个人口味吧",
]
CONNECTION_SECONDS = 1.0


def make_request(host, text):
    body = json.dumps({"texts": [text]}).encode()
    head = [
        "POST /v1/predict HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        f"Authorization: Bearer {os.environ.get('INFERENCE_TOKEN', '')}",
        f"Content-Length: {len(body)}",
        "",
        "",
    ]
    return "\r\n".join(head).encode() + body


async def read_answer(reader):
    """Read one answer; gives its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in lines[1:] if b": " in line)
    await reader.readexactly(int(fields[b"content-length"]))
    return int(lines[0].split()[1])


async def ask(host, port, until, latencies, troubles):
    requests = [make_request(host, text) for text in TEXTS]
    number = 0
    while time.monotonic() < until:
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 5)
        except (TimeoutError, OSError) as error:
            troubles.append(type(error).__name__)
            await asyncio.sleep(0.2)
            continue
        opened = time.monotonic()
        try:
            while time.monotonic() < min(until, opened + CONNECTION_SECONDS):
                began = time.monotonic()
                writer.write(requests[number % len(requests)])
                number += 1
                status = await asyncio.wait_for(read_answer(reader), 10)
                if status == 200:
                    latencies.append(time.monotonic() - began)
                else:
                    troubles.append(str(status))
                    await asyncio.sleep(0.02)
        except (TimeoutError, OSError, ValueError, EOFError) as error:
            troubles.append(type(error).__name__)
        finally:
            writer.close()


async def main(host, port, connections, seconds):
    latencies, troubles = [], []
    began = time.monotonic()
    asking = [ask(host, port, began + seconds, latencies, troubles) for _ in range(connections)]
    await asyncio.gather(*asking)
    spent = time.monotonic() - began
    latencies.sort()
    counts = {trouble: troubles.count(trouble) for trouble in sorted(set(troubles))}
    told = {"answers": len(latencies), "seconds": round(spent, 2), "troubles": counts}
    if latencies:
        told["p50_ms"] = round(latencies[len(latencies) // 2] * 1000, 2)
        told["p99_ms"] = round(latencies[len(latencies) * 99 // 100] * 1000, 2)
    print(json.dumps(told))


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
