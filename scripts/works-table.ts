/*
 * Makes README's table of what works with whom out of the interop run's own results (vitest's JSON report):
 *   node scripts/works-table.ts REPORT [--write README.md | --check README.md]
 * A cell is the number of tests that passed; a row or column without a single test is an error of this table.
 */
import { readFileSync, writeFileSync } from 'node:fs'

interface Report {
  testResults: { assertionResults: { ancestorTitles: string[]; title: string; status: string }[] }[]
}

const columns: readonly [string, RegExp][] = [
  ['Kubo 0.43', /^Kubo/],
  [
    'go-libp2p 0.51, boxo 0.43',
    /^go-libp2p|the go peer|^with go-graphsync|with go-ipld-prime|^go-car|^a mesh of|(?:with|Chromium) go-libp2p/,
  ],
  ['js-libp2p 3.3, Helia 7', /^js-libp2p|the js peer|with js-libp2p|^a mesh of/],
  ['rust-libp2p 0.57', /^rust-libp2p|with rust-libp2p|^a mesh of/],
  ['py-libp2p 0.8', /^py-libp2p|with py-libp2p|^a mesh of/],
]

/** What the test's full name (suites, then title) must match. */
const rows: readonly [string, RegExp][] = [
  ['TCP, Noise XX, yamux, identify, ping: rhiza dials', /(?:primitives|tcp with noise|^Kubo) is dialled/],
  ['the same: rhiza listens', /(?:primitives|tcp with noise) dials rhiza|^Kubo .*dials and pings it/],
  ['the same with portable primitives', /with noble primitives/],
  ['TLS 1.3 over TCP, both ways', /over tcp with tls/],
  ['WebSocket (`/ws`), both ways', /over ws /],
  ['WebSocket over TLS (`/tls/ws`), both ways', /over wss /],
  ['a page in Chromium dials, pings, fetches a file', /Chromium.*is dialled, pinged and fetched from by the page/],
  ['RSA, Secp256k1, ECDSA identities, both ways', /keys connect and authenticate/],
  ['private networks (pre-shared key), both ways', /^a private network/],
  ['large echoes, many streams in parallel', /echoes 1 MiB/],
  ['stream resets, both ways', /resets a stream|its reset/],
  ['reset and close codes, both ways', /^codes with/],
  ['`/perf/1.0.0`, both ways', /^\/perf\/1\.0\.0/],
  ['`/libp2p/fetch/0.0.1`, both ways', /^\/libp2p\/fetch/],
  ['unknown protocols refused, both ways', /is told na/],
  ['protocol versions, by range, both ways', /libp2p: versions/],
  ['Bitswap 1.2: files in both directions', /speaks 1\.2.*exchanges|both fetch them/],
  ['Bitswap 1.1', /speaks 1\.1.*exchanges/],
  ['Bitswap 1.0 (both directions: CIDv0)', /speaks 1\.0.*exchanges/],
  ['GraphSync 2.0.0, both ways', /^with go-graphsync|^rhiza graph and serve/],
  ['Kademlia: every request, both ways', /Kademlia one to one (?:answers|is answered)/],
  ['Kademlia: providers and peers, both ways', /Kademlia (?:one to one|in the LAN) (?:finds|provides|is found|keeps)/],
  ['Kademlia: records put and got, both ways', /Kademlia one to one gets the records/],
  ['IPNS names published and resolved, both ways', /Kademlia in the LAN publishes a name/],
  ['found (and fetched) among 23 mixed nodes', /among 23 nodes of Kademlia (?:finds|adds)/],
  ['IPNS over pubsub, both ways', /IPNS over pubsub/],
  ['selectors: same order, same matches', /^selectors with/],
  ['CARs read and written, both ways', /^go-car|^Kubo imports our CAR/],
  ['GossipSub 1.0 to 1.3, floodsub, both ways', /^pubsub with .*(?:it speaks at most|we speak at most|but floodsub)/],
  ['pubsub: signed with every key type, and unsigned', /^pubsub with .*(?:signatures|signed)/],
  ['pubsub: IDONTWANT, extensions, score, sizes', /^pubsub with .*(?:IDONTWANT|extension|score|graylist|1 MiB)/],
  ['pubsub: partial messages, both ways', /^partial messages/],
  ['pubsub: in one mesh of 13 mixed nodes', /in one mesh of 13 nodes/],
  ['same CIDs, profile unixfs-v1-2025', /unixfs-v1-2025 gives/],
  ['same CIDs, profile unixfs-v0-2015', /unixfs-v0-2015 gives/],
  ['command line: serve, cat, pin, get', /command line/],
]

const [report, mode, file] = process.argv.slice(2)
if (report === undefined) throw new TypeError('usage: works-table.ts REPORT [--write FILE | --check FILE]')
const { testResults } = JSON.parse(readFileSync(report, 'utf8')) as Report
const tests = testResults.flatMap(({ assertionResults }) =>
  assertionResults.map((t) => ({
    suite: t.ancestorTitles.join(' '),
    name: [...t.ancestorTitles, t.title].join(' '),
    status: t.status,
  })),
)

function cell(row: RegExp, column: RegExp): string {
  const found = tests.filter((t) => row.test(t.name) && column.test(t.suite))
  const passed = found.filter((t) => t.status === 'passed').length
  if (found.some((t) => t.status === 'failed')) return `fails (${passed} of ${found.length})`
  return passed === 0 ? '' : `✓ ${passed}`
}

const cells = rows.map(([what, row]) => [what].concat(columns.map(([, column]) => cell(row, column))))
for (const line of cells) if (line.slice(1).every((c) => c === '')) throw new Error(`no test shows: ${line[0]}`)
const table = [
  `| | ${columns.map(([name]) => name).join(' | ')} |`,
  `| --- |${' --- |'.repeat(columns.length)}`,
  ...cells.map((line) => `| ${line.join(' | ')} |`),
].join('\n')

if (mode === undefined || file === undefined) {
  process.stdout.write(`${table}\n`)
} else {
  const [start, end] = ['<!-- works -->', '<!-- /works -->']
  const text = readFileSync(file, 'utf8')
  const [before, rest] = [text.split(start)[0], text.split(end)[1]]
  if (rest === undefined) throw new Error(`${file} has no ${start} ... ${end}`)
  const made = `${before}${start}\n\n${table}\n\n${end}${rest}`
  if (mode === '--write') writeFileSync(file, made)
  else if (made !== text) {
    process.stdout.write(`${table}\n`)
    throw new Error(`${file} does not say what the interop run showed: run npm run interop:table`)
  }
}
