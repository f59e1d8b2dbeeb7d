// One timed run of a peer: the order of its reading is given on stdin, what it took is printed, both as JSON.
// {peer, call, items, concurrency, ordered, milliseconds} -> {elapsed, cpu, seen}, in seconds
import { readFileSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { pMapIterable } from 'p-map'
import { parallelMap, transform } from 'streaming-iterables'

const PEERS = {
  'node p-map': (fn, items, concurrency, preserveOrder) =>
    pMapIterable(items, fn, { concurrency, backpressure: concurrency, preserveOrder }),
  'node streaming-iterables': (fn, items, concurrency, ordered) =>
    (ordered ? parallelMap : transform)(concurrency, fn, items),
}

const CALLS = {
  returns: async x => x,
  turn: x => new Promise(resolve => setImmediate(resolve, x)),
  sleeps: x => setTimeout(wanted.milliseconds[x % wanted.milliseconds.length], x),
}

function* range(count) {
  for (let number = 0; number < count; number++) yield number
}

async function consume(fn, items) {
  let seen = 0
  for await (const _ of PEERS[wanted.peer](fn, range(items), wanted.concurrency, wanted.ordered)) seen++
  return seen
}

const wanted = JSON.parse(readFileSync(0, 'utf8'))
await consume(CALLS.returns, 2000) // warm-up: compiles what is hot
const used = process.cpuUsage()
const started = process.hrtime.bigint()
const seen = await consume(CALLS[wanted.call], wanted.items)
const elapsed = Number(process.hrtime.bigint() - started) / 1e9
const { user, system } = process.cpuUsage(used)
console.log(JSON.stringify({ elapsed, cpu: (user + system) / 1e6, seen }))
