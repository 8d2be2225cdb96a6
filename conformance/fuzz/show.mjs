/** A difference for people: the program with both answers, and a case of the matrix that makes the same calls. */

export function shown({ kernel, seed, index, program, sim, linux, alone }) {
  const lines = [`${kernel}, seed ${seed}, program ${index}${alone ? '' : ' (only after the programs before it)'}`];
  for (const [i, call] of program.entries()) {
    const same = sim[i] === linux[i];
    lines.push(`  ${same ? ' ' : '*'} ${JSON.stringify(call)}`);
    lines.push(same ? `      ${sim[i]}` : `      simulated: ${sim[i]}\n      Linux:     ${linux[i]}`);
  }
  lines.push('', asCase({ kernel, seed, index, program, linux }));
  return lines.join('\n');
}

/** For a file of cases/, with `replayed` of ../replay.mjs. What Linux answered is to be checked against its source before it is written down as expected. */
function asCase({ kernel, seed, index, program, linux }) {
  const call = program.at(-1);
  return [
    `suite('found by programs', { needs: ['type1', 'iommufd'], source: 'FILE', fixture: replayed }, (add) => {`,
    `  // ${kernel}, seed ${seed}, program ${index}`,
    `  add('${call.request ?? call.op}: WHAT', 'FUNCTION', (_t, replay) => {`,
    `    replay(${JSON.stringify(program)}, ${JSON.stringify(linux)});`,
    '  });',
    '});',
  ].join('\n');
}
