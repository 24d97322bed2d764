/*
 * npm test: unit tests and simulations. npm test -- kademlia, npm test -- pubsub: one part of the project alone, with its
 * interop tests.
 * Everything else goes to vitest: npm test -- bitswap runs the files whose path has bitswap in it.
 */
import { spawnSync } from 'node:child_process'

/** By name, what the paths of a part's test files have in them. */
const parts: Readonly<Record<string, readonly string[]>> = {
  pubsub: ['pubsub', 'gossip', 'test/ipns/', 'interop/fetch'],
  kademlia: ['kademlia', 'test/dht/', 'hostile/dht', 'test/ipns/', 'test/discovery/', 'interop/mdns', 'cli/routing'],
}

const args = process.argv.slice(2)
const projects = ['unit', 'sim', ...(args.some((arg) => Object.hasOwn(parts, arg)) ? ['interop'] : [])]
// npm has put its own vitest in front of the path.
const { status, error } = spawnSync(
  'vitest',
  ['run', ...projects.flatMap((name) => ['--project', name]), ...args.flatMap((arg) => parts[arg] ?? [arg])],
  { stdio: 'inherit' },
)
if (error !== undefined) throw error
process.exitCode = status ?? 1
