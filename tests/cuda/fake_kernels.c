/* Which kernels are launched, by name: every one that a library registers, and every product asked of cuBLAS.
 *
 * Between `fake_trace(1)` and `fake_trace(0)` each launch adds its name and a newline to what `fake_traced` gives; fills
 * and copies on the device, which are nodes of a captured graph too, are among them.
 */
#include <stdio.h>
#include <string.h>

#define MOST_KERNELS 65536

static struct {
    const void *function;
    const char *name;
} kernels[MOST_KERNELS];
static int known;
static int is_tracing;
static char trace[1 << 22];
static size_t length;

void fake_trace(int is_on) {
    is_tracing = is_on;
    if (is_on) trace[length = 0] = 0;
}

const char *fake_traced(void) { return trace; }

long fake_note(const char *name) {
    if (is_tracing && length + strlen(name) + 2 < sizeof trace) length += sprintf(trace + length, "%s\n", name);
    return 0;
}

void fake_note_kernel(const void *function) {
    if (!is_tracing) return;
    for (int i = known - 1; i >= 0; i--)
        if (kernels[i].function == function) {
            fake_note(kernels[i].name);
            return;
        }
    fake_note("unknown");
}

void __cudaRegisterFunction(void **library, const char *host, char *device, const char *name, int threads, void *thread,
                            void *block, void *block_dim, void *grid_dim, int *warp) {
    if (known == MOST_KERNELS) return;
    kernels[known].function = host;
    kernels[known++].name = name;
}
