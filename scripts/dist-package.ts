/* dist/ gets a package.json of its own: the same `imports` map, pointing at the built files (tsc does not rewrite it). */
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs'

const root = JSON.parse(readFileSync('package.json', 'utf8')) as {
  imports: unknown
  type: string
  sideEffects: boolean
}
const imports = JSON.parse(
  JSON.stringify(root.imports).replaceAll('./src/', './').replaceAll('.ts"', '.js"'),
) as unknown
writeFileSync(
  'dist/package.json',
  JSON.stringify({ type: root.type, sideEffects: root.sideEffects, imports }, null, 2) + '\n',
)
if (existsSync('dist/cli/main.js')) chmodSync('dist/cli/main.js', 0o755)
