import { describe, expect, it } from 'vitest';
import { UsageError } from '../usage.ts';
import { parseExecOptions } from './options.ts';

function refused(...args: string[]): string {
  try {
    parseExecOptions(args);
  } catch (error) {
    if (error instanceof UsageError) return error.message;
    throw error;
  }
  return 'taken';
}

describe('the command line of belfry exec', () => {
  it('ends at --: what follows is the program, whatever it looks like', () => {
    expect(parseExecOptions(['--quiet', '--', 'ls', '--json', '--', '-l'])).toMatchObject({
      quiet: true,
      json: false,
      argv: ['ls', '--json', '--', '-l'],
    });
  });

  it('says where the -- belongs when it is missing', () => {
    expect(refused('true')).toBe('exec: expected -- before the program: belfry exec -- true');
    expect(refused('--host', 'x86', 'ls', '/dev/vfio')).toBe(
      'exec: expected -- before the program: belfry exec --host x86 -- ls /dev/vfio',
    );
    expect(refused('--quiet', 'ls', '-l')).toBe('exec: expected -- before the program: belfry exec --quiet -- ls -l');
    expect(refused('--bogus', '--', 'true')).toBe("Unknown option '--bogus'");
    expect(refused('--bogus')).toBe("Unknown option '--bogus'");
    expect(refused('--quiet')).toBe('exec: expected -- and a program to run');
    expect(refused('--')).toBe('exec: expected -- and a program to run');
    expect(refused('x86', '--', 'true')).toBe("Unexpected argument 'x86'");
  });
});
