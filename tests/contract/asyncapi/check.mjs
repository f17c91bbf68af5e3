// Validates an AsyncAPI document with the AsyncAPI initiative's own parser, the Avro schema it refers to included.
// node check.mjs FILE: prints what is wrong, and fails for errors and warnings.
import { Parser, fromFile } from '@asyncapi/parser';
import { AvroSchemaParser } from '@asyncapi/avro-schema-parser';

const NAMES = ['error', 'warning', 'information', 'hint'];
const parser = new Parser();
parser.registerSchemaParser(AvroSchemaParser());
const { document, diagnostics } = await fromFile(parser, process.argv[2]).parse();
for (const { severity, code, path, message } of diagnostics) {
  console.log(`${NAMES[severity]}: ${path.join('.')}: ${message} (${code})`);
}
const bad = diagnostics.filter(({ severity }) => severity <= 1).length;
if (!document || bad) {
  console.log(`${process.argv[2]} is no valid AsyncAPI document: ${bad} errors and warnings`);
  process.exit(1);
}
console.log(`${process.argv[2]} is a valid AsyncAPI ${document.version()} document: ${document.channels().length} channels, ${document.allMessages().length} messages`);
