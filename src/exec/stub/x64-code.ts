/**
 * What a program's process runs before it is the program, as instructions for x86-64: it installs the filter on itself, tells its listener's descriptor,
 * waits to be let go, and becomes the program. A process of its own size would need a second Node for that, which takes longer to start than most programs
 * run. Each row is one instruction: its bytes, and what they mean (Intel's syntax; rsp points to argc at the start, System V ABI for AMD64 3.4.1).
 * Where the image is loaded and where its data lies is image.ts's to keep.
 */
export type Instruction = readonly [bytes: string, text: string];

export const X64_CODE: readonly Instruction[] = [
  // Descriptors 3 and 4 are not the program's: fcntl(fd, F_SETFD, FD_CLOEXEC).
  ['49 89 e4', 'mov r12, rsp'],
  ['bf 03 00 00 00', 'mov edi, 0x3'],
  ['be 02 00 00 00', 'mov esi, 0x2'],
  ['ba 01 00 00 00', 'mov edx, 0x1'],
  ['b8 48 00 00 00', 'mov eax, 0x48'],
  ['0f 05', 'syscall'],
  ['bf 04 00 00 00', 'mov edi, 0x4'],
  ['b8 48 00 00 00', 'mov eax, 0x48'],
  ['0f 05', 'syscall'],
  // prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).
  ['bf 26 00 00 00', 'mov edi, 0x26'],
  ['be 01 00 00 00', 'mov esi, 0x1'],
  ['31 d2', 'xor edx, edx'],
  ['45 31 d2', 'xor r10d, r10d'],
  ['45 31 c0', 'xor r8d, r8d'],
  ['b8 9d 00 00 00', 'mov eax, 0x9d'],
  ['0f 05', 'syscall'],
  // seccomp(SECCOMP_SET_MODE_FILTER, NEW_LISTENER | WAIT_KILLABLE_RECV, filter), and before Linux 5.19 NEW_LISTENER alone.
  ['bf 01 00 00 00', 'mov edi, 0x1'],
  ['be 28 00 00 00', 'mov esi, 0x28'],
  ['ba 00 02 40 00', 'mov edx, 0x400200'],
  ['b8 3d 01 00 00', 'mov eax, 0x13d'],
  ['0f 05', 'syscall'],
  ['85 c0', 'test eax, eax'],
  ['79 0c', 'jns told'],
  ['be 08 00 00 00', 'mov esi, 0x8'],
  ['b8 3d 01 00 00', 'mov eax, 0x13d'],
  ['0f 05', 'syscall'],
  // Tells what it returned: write(3, rsp, 4).
  ['89 c3', 'told: mov ebx, eax'],
  ['53', 'push rbx'],
  ['bf 03 00 00 00', 'mov edi, 0x3'],
  ['48 89 e6', 'mov rsi, rsp'],
  ['ba 04 00 00 00', 'mov edx, 0x4'],
  ['b8 01 00 00 00', 'mov eax, 0x1'],
  ['0f 05', 'syscall'],
  ['85 db', 'test ebx, ebx'],
  ['78 7f', 'js fail'],
  // Without an answer nobody would serve the program: read(4, rsp, 1).
  ['bf 04 00 00 00', 'mov edi, 0x4'],
  ['ba 01 00 00 00', 'mov edx, 0x1'],
  ['31 c0', 'xor eax, eax'],
  ['0f 05', 'syscall'],
  ['83 f8 01', 'cmp eax, 0x1'],
  ['75 6c', 'jne fail'],
  // execve(path, argv, envp), as they lie on the stack that it was started with.
  ['49 8b 04 24', 'mov rax, [r12]'],
  ['49 8d 54 c4 10', 'lea rdx, [r12+rax*8+0x10]'],
  ['49 8d 74 24 08', 'lea rsi, [r12+0x8]'],
  ['48 8b 3c 25 10 02 40 00', 'mov rdi, ds:0x400210'],
  ['b8 3b 00 00 00', 'mov eax, 0x3b'],
  ['0f 05', 'syscall'],
  ['83 f8 f8', 'cmp eax, -8'],
  ['75 20', 'jne report'],
  // ENOEXEC: a script without #!, which a shell reads. argc makes room for its name, and the path stands for the first argument.
  ['48 8b 04 25 10 02 40 00', 'mov rax, ds:0x400210'],
  ['49 89 44 24 08', 'mov [r12+0x8], rax'],
  ['bf 18 02 40 00', 'mov edi, 0x400218'],
  ['49 89 3c 24', 'mov [r12], rdi'],
  ['4c 89 e6', 'mov rsi, r12'],
  ['b8 3b 00 00 00', 'mov eax, 0x3b'],
  ['0f 05', 'syscall'],
  // Tells the errno: write(3, rsp, 4). Ends as a shell does, 127 not found, 126 not executable.
  ['f7 d8', 'report: neg eax'],
  ['89 c3', 'mov ebx, eax'],
  ['53', 'push rbx'],
  ['bf 03 00 00 00', 'mov edi, 0x3'],
  ['48 89 e6', 'mov rsi, rsp'],
  ['ba 04 00 00 00', 'mov edx, 0x4'],
  ['b8 01 00 00 00', 'mov eax, 0x1'],
  ['0f 05', 'syscall'],
  ['bf 7e 00 00 00', 'mov edi, 0x7e'],
  ['83 fb 02', 'cmp ebx, 0x2'],
  ['75 0c', 'jne leave'],
  ['bf 7f 00 00 00', 'mov edi, 0x7f'],
  ['eb 05', 'jmp leave'],
  // Nothing was run.
  ['bf 7d 00 00 00', 'fail: mov edi, 0x7d'],
  // exit_group(edi).
  ['b8 e7 00 00 00', 'leave: mov eax, 0xe7'],
  ['0f 05', 'syscall'],
];
