// SPDX-License-Identifier: Apache-2.0
/*
 * ptrace(2) for user-mode Linux on a processor that has more registers than it has room for.
 *
 * User-mode Linux 6.1 keeps 2,696 bytes of registers for each of its processes (HOST_FP_SIZE). Where the processor has
 * more, as with AMX, the host hands over a part of them and takes back all or none (EFAULT, xstateregs_set() in
 * arch/x86/kernel/fpu/regset.c): the machine panics in put_fp_registers() at its first process. So what it gives back
 * is filled up to the whole: with nothing, since what is beyond its room is AMX's alone, and that no program has in use
 * who has not asked the kernel for it. Preloaded, see ld.so(8) and machine.py.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

typedef long (*call)(enum __ptrace_request, pid_t, void *, void *);

/* Its kernel stacks are too small for this, and only one thread of it asks. */
static char whole[1 << 16];
static size_t length;

long ptrace(enum __ptrace_request request, ...)
{
	static call next;
	va_list more;

	if (!next)
		next = (call)dlsym(RTLD_NEXT, "ptrace");
	va_start(more, request);
	pid_t pid = va_arg(more, pid_t);
	void *address = va_arg(more, void *);
	void *data = va_arg(more, void *);
	va_end(more);
	if (request == PTRACE_SETREGSET && address == (void *)NT_X86_XSTATE) {
		struct iovec *given = data, all = {whole, sizeof(whole)};

		if (!length) {
			long failed = next(PTRACE_GETREGSET, pid, address, &all);

			if (failed)
				return failed;
			length = all.iov_len;
			memset(whole, 0, length);
		}
		all.iov_len = length;
		memcpy(whole, given->iov_base, given->iov_len < length ? given->iov_len : length);
		return next(request, pid, address, &all);
	}
	return next(request, pid, address, data);
}
