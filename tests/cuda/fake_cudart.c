/* A CUDA runtime without a GPU. Memory is real, kernels do nothing.
 *
 * What it is for: seeing how onnxruntime's CUDA provider and our engine use a device. "Device" memory cannot be touched
 * by the processor (it is mapped without access; copies go through a second mapping), so whoever reads or writes it
 * without a copy ends with a segmentation fault. Copies in a wrong direction or past a block, waits inside a graph that
 * is being captured, and frees of what was never allocated are written down as faults. `fake_counts` and `fake_faults`
 * tell what happened.
 */
#define _GNU_SOURCE
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#undef cudaGetDeviceProperties
#define MOST_BLOCKS 65536
#define PAGE 4096ul
#define TOTAL_BYTES (80ul << 30)

typedef struct {
    char *device, *host; /* the same memory, without and with access */
    size_t bytes;
    int number; /* of the device */
} Block;

enum { LAUNCHES, TO_DEVICE, TO_HOST, ON_DEVICE, ALLOCATIONS, BYTES, GRAPHS, GRAPH_LAUNCHES, COUNTS };

static Block blocks[MOST_BLOCKS];
static int used_blocks;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long counts[COUNTS];
static char faults[1 << 16];
static size_t faults_length;
static int is_capturing, refuses_captures;
static cudaError_t broken = cudaSuccess;
static long newest_handle = 1000;
static __thread int current; /* the device that this thread's calls mean */

void fake_note(const char *name), fake_note_kernel(const void *kernel); /* of fake_kernels.c */

/* launches, copies to the device, to the host and on the device, allocations, bytes allocated now, graphs captured and
 * graphs launched */
void fake_counts(long *into) { memcpy(into, counts, sizeof counts); }

const char *fake_faults(void) { return faults; }

/* From now on every kernel, graph and wait fails, as after an error that a GPU does not get over. */
void fake_break(void) { broken = cudaErrorIllegalAddress; }

/* From now on no graph can be captured, as when a kernel in it waits for the device. */
void fake_refuse_captures(void) { refuses_captures = 1; }

static void fault(const char *format, ...) {
    va_list values;
    va_start(values, format);
    if (faults_length + 200 < sizeof faults) {
        faults_length += vsnprintf(faults + faults_length, 199, format, values);
        faults[faults_length++] = '\n';
    }
    va_end(values);
}

static cudaError_t unless_capturing(const char *call) {
    if (!is_capturing) return broken;
    fault("%s in a graph that is being captured", call);
    return cudaErrorStreamCaptureUnsupported;
}

/* --- memory ------------------------------------------------------------------------------------------------------ */

static Block *block_of(const void *address) {
    Block *found = NULL;
    pthread_mutex_lock(&lock);
    for (int i = used_blocks - 1; i >= 0 && !found; i--) {
        char *begin = blocks[i].device;
        if (begin && (char *)address >= begin && (char *)address < begin + blocks[i].bytes) found = &blocks[i];
    }
    pthread_mutex_unlock(&lock);
    return found;
}

static void *reachable(const void *address) {
    Block *block = block_of(address);
    return block ? block->host + ((char *)address - block->device) : (void *)address;
}

static cudaError_t allocate(void **address, size_t bytes) {
    *address = NULL;
    if (!bytes) return cudaSuccess;
    bytes = (bytes + PAGE - 1) & ~(PAGE - 1);
    int file = memfd_create("fake device memory", 0);
    if (file < 0 || ftruncate(file, (off_t)bytes)) return cudaErrorMemoryAllocation;
    char *host = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    char *device = mmap(NULL, bytes, PROT_NONE, MAP_SHARED, file, 0);
    close(file);
    if (host == MAP_FAILED || device == MAP_FAILED) return cudaErrorMemoryAllocation;
    pthread_mutex_lock(&lock);
    int at = 0;
    while (at < used_blocks && blocks[at].device) at++;
    if (at == used_blocks && used_blocks < MOST_BLOCKS) used_blocks++;
    if (at < used_blocks) blocks[at] = (Block){device, host, bytes, current};
    counts[ALLOCATIONS]++;
    counts[BYTES] += (long)bytes;
    pthread_mutex_unlock(&lock);
    if (at == MOST_BLOCKS) return cudaErrorMemoryAllocation;
    *address = device;
    return cudaSuccess;
}

static cudaError_t give_back(void *address) {
    if (!address) return cudaSuccess;
    Block *block = block_of(address);
    if (!block || block->device != address) {
        fault("something is freed that was not allocated");
        return cudaErrorInvalidValue;
    }
    munmap(block->device, block->bytes);
    munmap(block->host, block->bytes);
    counts[BYTES] -= (long)block->bytes;
    block->device = NULL;
    return cudaSuccess;
}

static cudaError_t copy(const char *call, void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
    Block *target = block_of(to), *source = block_of(from);
    int wants_target = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    int wants_source = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (bytes && kind != cudaMemcpyDefault && (wants_target != !!target || wants_source != !!source))
        fault("%s of kind %d from %s to %s", call, kind, source ? "device" : "host", target ? "device" : "host");
    if (target && (char *)to + bytes > target->device + target->bytes) fault("%s of %zu bytes writes past a block", call, bytes);
    if (source && (char *)from + bytes > source->device + source->bytes) fault("%s of %zu bytes reads past a block", call, bytes);
    if (bytes && ((target && target->number != current) || (source && source->number != current)))
        fault("%s by a thread that means another device", call);
    if (is_capturing && bytes && (!target || !source)) fault("%s with host memory in a graph", call);
    if (target && source) counts[ON_DEVICE]++, fake_note("copy");
    else if (target) counts[TO_DEVICE]++;
    else if (source) counts[TO_HOST]++;
    memmove(reachable(to), reachable(from), bytes);
    return cudaSuccess;
}

static cudaError_t fill(void *address, int value, size_t bytes) {
    Block *block = block_of(address);
    if (bytes && !block) fault("host memory is filled as if it were the device's");
    if (block && block->number != current) fault("memory is filled by a thread that means another device");
    fake_note("fill");
    memset(reachable(address), value, bytes);
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **address, size_t bytes) {
    cudaError_t error = unless_capturing("cudaMalloc");
    return error ? error : allocate(address, bytes);
}
cudaError_t cudaMallocFromPoolAsync(void **address, size_t bytes, cudaMemPool_t pool, cudaStream_t stream) {
    return allocate(address, bytes);
}
cudaError_t cudaFree(void *address) {
    cudaError_t error = unless_capturing("cudaFree");
    return error ? error : give_back(address);
}
cudaError_t cudaFreeAsync(void *address, cudaStream_t stream) { return give_back(address); }
cudaError_t cudaMallocHost(void **address, size_t bytes) {
    *address = malloc(bytes ? bytes : 1);
    return cudaSuccess;
}
cudaError_t cudaHostAlloc(void **address, size_t bytes, unsigned flags) { return cudaMallocHost(address, bytes); }
cudaError_t cudaFreeHost(void *address) {
    free(address);
    return cudaSuccess;
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
    cudaError_t error = unless_capturing("cudaMemcpy");
    return error ? error : copy("cudaMemcpy", to, from, bytes, kind);
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
    return copy("cudaMemcpyAsync", to, from, bytes, kind);
}
cudaError_t cudaMemcpy2D(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height,
                         enum cudaMemcpyKind kind) {
    cudaError_t error = unless_capturing("cudaMemcpy2D");
    for (size_t row = 0; row < height && !error; row++)
        error = copy("cudaMemcpy2D", (char *)to + row * to_pitch, (char *)from + row * from_pitch, width, kind);
    return error;
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, enum cudaMemcpyKind kind, cudaStream_t stream) {
    for (size_t row = 0; row < height; row++)
        copy("cudaMemcpy2DAsync", (char *)to + row * to_pitch, (char *)from + row * from_pitch, width, kind);
    return cudaSuccess;
}
cudaError_t cudaMemcpyFromSymbol(void *to, const void *symbol, size_t bytes, size_t offset, enum cudaMemcpyKind kind) {
    memset(reachable(to), 0, bytes);
    return cudaSuccess;
}
cudaError_t cudaMemset(void *address, int value, size_t bytes) {
    cudaError_t error = unless_capturing("cudaMemset");
    return error ? error : fill(address, value, bytes);
}
cudaError_t cudaMemsetAsync(void *address, int value, size_t bytes, cudaStream_t stream) {
    return fill(address, value, bytes);
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
    *total_bytes = TOTAL_BYTES;
    *free_bytes = TOTAL_BYTES - (size_t)counts[BYTES];
    return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *address) {
    memset(attributes, 0, sizeof *attributes);
    Block *block = block_of(address);
    attributes->type = block ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
    attributes->device = block ? block->number : 0;
    attributes->devicePointer = (void *)address;
    return cudaSuccess;
}

/* --- the device: sizes of an RTX 3090 (86), an RTX 4090 (89) or an H100 (90), as far as kernels are chosen by them ------ */

#ifndef CAPABILITY
#define CAPABILITY 90
#endif
#ifndef DRIVER
#define DRIVER CUDART_VERSION
#endif
#define IS_SMALL (CAPABILITY == 86 || CAPABILITY == 89)
enum { PROCESSORS = CAPABILITY == 86 ? 82 : CAPABILITY == 89 ? 128 : 132, PROCESSOR_THREADS = IS_SMALL ? 1536 : 2048 };
enum { MAJOR = CAPABILITY / 10, MINOR = CAPABILITY % 10, WARP = 32, BLOCK_THREADS = 1024, REGISTERS = 65536 };
enum { SHARED_BYTES = 49152, SHARED_PROCESSOR_BYTES = IS_SMALL ? 102400 : 233472, SHARED_OPT_IN_BYTES = SHARED_PROCESSOR_BYTES - 1024 };

cudaError_t cudaGetDeviceCount(int *count) {
    *count = DEVICES;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int *number) {
    *number = current;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int number) {
    if (number < 0 || number >= DEVICES) return cudaErrorInvalidDevice;
    current = number;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version) {
    *version = DRIVER;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) {
    memset(p, 0, sizeof *p);
    strcpy(p->name, "no GPU");
    p->totalGlobalMem = TOTAL_BYTES;
    p->sharedMemPerBlock = SHARED_BYTES;
    p->sharedMemPerBlockOptin = SHARED_OPT_IN_BYTES;
    p->sharedMemPerMultiprocessor = SHARED_PROCESSOR_BYTES;
    p->regsPerBlock = p->regsPerMultiprocessor = REGISTERS;
    p->warpSize = WARP;
    p->maxThreadsPerBlock = BLOCK_THREADS;
    p->maxThreadsPerMultiProcessor = PROCESSOR_THREADS;
    p->multiProcessorCount = PROCESSORS;
    p->major = MAJOR;
    p->minor = MINOR;
    p->l2CacheSize = 50 << 20;
    for (int axis = 0; axis < 3; axis++) {
        p->maxThreadsDim[axis] = BLOCK_THREADS;
        p->maxGridSize[axis] = axis ? 65535 : 2147483647;
    }
    p->memoryPoolsSupported = p->cooperativeLaunch = 1;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = PROCESSORS; break;
    case cudaDevAttrComputeCapabilityMajor: *value = MAJOR; break;
    case cudaDevAttrComputeCapabilityMinor: *value = MINOR; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = SHARED_BYTES; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = SHARED_OPT_IN_BYTES; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = SHARED_PROCESSOR_BYTES; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = BLOCK_THREADS; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = PROCESSOR_THREADS; break;
    case cudaDevAttrWarpSize: *value = WARP; break;
    default: *value = 1;
    }
    return cudaSuccess;
}

/* --- kernels --------------------------------------------------------------------------------------------------------- */

static cudaError_t launch(const void *kernel) {
    counts[LAUNCHES]++;
    fake_note_kernel(kernel);
    return is_capturing && refuses_captures ? cudaErrorStreamCaptureUnsupported : broken;
}
static __thread struct {
    dim3 grid, block;
    size_t shared;
    void *stream;
} configured;

cudaError_t cudaLaunchKernel(const void *f, dim3 g, dim3 b, void **a, size_t m, cudaStream_t s) { return launch(f); }
cudaError_t __cudaLaunchKernel(cudaKernel_t f, dim3 g, dim3 b, void **a, size_t m, cudaStream_t s) { return launch(f); }
cudaError_t cudaLaunchCooperativeKernel(const void *f, dim3 g, dim3 b, void **a, size_t m, cudaStream_t s) { return launch(f); }
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *f, void **a) { return launch(f); }
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data) {
    if (is_capturing) fault("a host function in a graph");
    function(data);
    return cudaSuccess;
}
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) {
    configured.grid = grid, configured.block = block, configured.shared = shared, configured.stream = stream;
    return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
    *grid = configured.grid, *block = configured.block, *shared = configured.shared;
    *(void **)stream = configured.stream;
    return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *function) {
    memset(attributes, 0, sizeof *attributes);
    attributes->maxThreadsPerBlock = BLOCK_THREADS;
    attributes->numRegs = 64;
    attributes->binaryVersion = attributes->ptxVersion = 10 * MAJOR + MINOR;
    attributes->maxDynamicSharedSizeBytes = SHARED_OPT_IN_BYTES;
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *count, const void *f, int threads,
                                                                   size_t shared, unsigned flags) {
    *count = 2;
    return cudaSuccess;
}
void **__cudaRegisterFatBinary(void *binary) {
    static void *handle;
    return &handle;
}
cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *function) {
    *kernel = (cudaKernel_t)function;
    return cudaSuccess;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version,
                                             unsigned long long flags, enum cudaDriverEntryPointQueryResult *result) {
    *function = NULL;
    if (result) *result = cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}
const char *cudaGetErrorName(cudaError_t error) { return "an error of the runtime without a GPU"; }
const char *cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }

/* --- streams, events and graphs: nothing runs by itself, so nothing has to be waited for ----------------------------- */

static cudaError_t new_handle(void *into) { return *(void **)into = (void *)++newest_handle, cudaSuccess; }
cudaError_t cudaStreamCreate(cudaStream_t *stream) { return new_handle(stream); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) { return new_handle(stream); }
cudaError_t cudaEventCreate(cudaEvent_t *event) { return new_handle(event); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) { return new_handle(event); }
cudaError_t cudaMemPoolCreate(cudaMemPool_t *pool, const struct cudaMemPoolProps *p) { return new_handle(pool); }
cudaError_t cudaLibraryLoadData(cudaLibrary_t *library, const void *code, enum cudaJitOption *o, void **v, unsigned n,
                                enum cudaLibraryOption *p, void **q, unsigned m) {
    return new_handle(library);
}
cudaError_t cudaLibraryGetKernel(cudaKernel_t *kernel, cudaLibrary_t library, const char *name) {
    return new_handle(kernel);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return unless_capturing("cudaStreamSynchronize"); }
cudaError_t cudaDeviceSynchronize(void) { return unless_capturing("cudaDeviceSynchronize"); }
cudaError_t cudaEventSynchronize(cudaEvent_t event) { return unless_capturing("cudaEventSynchronize"); }
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) {
    *ms = 1;
    return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    if (is_capturing) fault("a graph is captured in another");
    is_capturing = 1;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    is_capturing = 0;
    *graph = NULL;
    if (refuses_captures) return cudaErrorStreamCaptureInvalidated;
    counts[GRAPHS]++;
    return new_handle(graph);
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    *status = is_capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long flags) {
    return new_handle(executable);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
    counts[GRAPH_LAUNCHES]++;
    return broken;
}
