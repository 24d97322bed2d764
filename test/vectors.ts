/* Outside vectors: the small ones in spec-vectors, the big ones in a folder beside the project (or RHIZA_VECTORS). */
import { existsSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'

const root = resolve(import.meta.dirname, '..')
const shared = process.env['RHIZA_VECTORS'] ?? resolve(root, '../shared/vectors')

/** The cases of `spec-vectors/<path>`: the caller knows their shape. */
export function specCases(path: string): unknown[] {
  return (JSON.parse(readFileSync(resolve(root, 'spec-vectors', path), 'utf8')) as { cases: unknown[] }).cases
}

/** Where the file of the shared vectors is; undefined where the folder is absent: the test then says that it skips. */
export function sharedVectors(path: string): string | undefined {
  const file = resolve(shared, path)
  return existsSync(file) ? file : undefined
}

/** A shared JSON file, parsed; undefined where it is absent. */
export function sharedJson(path: string): unknown {
  const file = sharedVectors(path)
  return file === undefined ? undefined : (JSON.parse(readFileSync(file, 'utf8')) as unknown)
}
