/*
 * cuda_arena.cu
 *	  The memory that weights lie in, and its way to another process.
 *
 * An arena that may be lent is made with the driver's virtual memory calls:
 * the memory is a thing of its own, a descriptor of it can be passed to another
 * process, and it lives until the last one that holds it lets go, in whatever
 * order they die.  (Memory of cudaMalloc, passed with cudaIpcGetMemHandle,
 * would go with its owner.)  Who borrows it maps it to be read alone, at any
 * address: what lies where in it follows from the order of loading.
 *
 * The driver's functions are looked up when they are needed; the library links
 * the runtime alone.  Where the driver has none of them, or does not pass
 * memory on, the arena comes from cudaMalloc and cannot be lent.
 *
 * cuda/cuda_arena.cu
 */
#include "cuda/cuda_internal.cuh"

#include <cuda.h>
#include <cudaTypedefs.h>
#include <string.h>

/* What the driver had when these calls got their form. */
#define DRIVER_CALLS_VERSION 10020

typedef struct DriverCalls
{
	PFN_cuMemGetAllocationGranularity_v10020 granularity;
	PFN_cuMemCreate_v10020 create;
	PFN_cuMemRelease_v10020 release;
	PFN_cuMemAddressReserve_v10020 reserve;
	PFN_cuMemAddressFree_v10020 free_address;
	PFN_cuMemMap_v10020 map;
	PFN_cuMemUnmap_v10020 unmap;
	PFN_cuMemSetAccess_v10020 set_access;
	PFN_cuMemExportToShareableHandle_v10020 export_handle;
	PFN_cuMemImportFromShareableHandle_v10020 import_handle;
} DriverCalls;

template <typename Function>
static bool
find_call(const char *name, Function *call)
{
	cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
	void *address = NULL;
	cudaError_t code = cudaGetDriverEntryPointByVersion(
		name, &address, DRIVER_CALLS_VERSION, cudaEnableDefault, &found);

	(void) cudaGetLastError();
	*call = (Function) address;
	return code == cudaSuccess && found == cudaDriverEntryPointSuccess &&
		   address != NULL;
}

static bool
find_calls(DriverCalls *driver)
{
	return find_call("cuMemGetAllocationGranularity", &driver->granularity) &&
		   find_call("cuMemCreate", &driver->create) &&
		   find_call("cuMemRelease", &driver->release) &&
		   find_call("cuMemAddressReserve", &driver->reserve) &&
		   find_call("cuMemAddressFree", &driver->free_address) &&
		   find_call("cuMemMap", &driver->map) &&
		   find_call("cuMemUnmap", &driver->unmap) &&
		   find_call("cuMemSetAccess", &driver->set_access) &&
		   find_call("cuMemExportToShareableHandle", &driver->export_handle) &&
		   find_call("cuMemImportFromShareableHandle", &driver->import_handle);
}

static CUmemAllocationProp
arena_properties(const LlmCuda *cuda)
{
	CUmemAllocationProp properties = {};

	properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
	properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
	properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
	properties.location.id = cuda->device;
	return properties;
}

/* The arena in whole pieces of the driver's; the same for both who map it. */
static bool
round_up(LlmCuda *cuda, const DriverCalls *driver)
{
	CUmemAllocationProp properties = arena_properties(cuda);
	size_t n = 0;

	if (driver->granularity(&n, &properties,
							CU_MEM_ALLOC_GRANULARITY_RECOMMENDED) !=
			CUDA_SUCCESS ||
		n == 0)
		return false;
	cuda->arena_bytes = (cuda->options.arena_bytes + n - 1) / n * n;
	return true;
}

/* Reserve addresses and put the memory behind them. */
static bool
map_arena(LlmCuda *cuda, const DriverCalls *driver, CUmemAccess_flags access)
{
	CUmemAccessDesc desc = {};
	CUdeviceptr address = 0;

	desc.location = arena_properties(cuda).location;
	desc.flags = access;
	if (driver->reserve(&address, cuda->arena_bytes, 0, 0, 0) != CUDA_SUCCESS)
		return false;
	if (driver->map(address, cuda->arena_bytes, 0, cuda->arena_handle, 0) ==
		CUDA_SUCCESS)
	{
		if (driver->set_access(address, cuda->arena_bytes, &desc, 1) ==
			CUDA_SUCCESS)
		{
			cuda->arena = (char *) address;
			return true;
		}
		(void) driver->unmap(address, cuda->arena_bytes);
	}
	(void) driver->free_address(address, cuda->arena_bytes);
	return false;
}

static void
forget_arena(LlmCuda *cuda)
{
	cuda->arena = NULL;
	cuda->arena_handle = 0;
	cuda->arena_bytes = 0;
	cuda->is_arena_mapped = false;
}

/* False: this driver cannot, or there is not so much memory. */
static bool
make_lendable(LlmCuda *cuda)
{
	CUmemAllocationProp properties = arena_properties(cuda);
	CUmemGenericAllocationHandle handle = 0;
	DriverCalls driver;

	if (!find_calls(&driver) || !round_up(cuda, &driver) ||
		driver.create(&handle, cuda->arena_bytes, &properties, 0) !=
			CUDA_SUCCESS)
		return false;
	cuda->arena_handle = handle;
	if (map_arena(cuda, &driver, CU_MEM_ACCESS_FLAGS_PROT_READWRITE))
	{
		cuda->is_arena_mapped = true;
		return true;
	}
	(void) driver.release(handle);
	return false;
}

/*
 * Map what another process has lent.  A driver that knows no mapping for
 * reading alone gets one for both: nothing here writes to weights.
 */
static bool
borrow(LlmCuda *cuda, LlmError *err)
{
	CUmemGenericAllocationHandle handle = 0;
	DriverCalls driver;

	if (find_calls(&driver) && round_up(cuda, &driver) &&
		driver.import_handle(
			&handle, (void *) (uintptr_t) cuda->options.borrowed_arena,
			CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) == CUDA_SUCCESS)
	{
		cuda->arena_handle = handle;
		cuda->is_arena_mapped = cuda->base.is_arena_guarded =
			map_arena(cuda, &driver, CU_MEM_ACCESS_FLAGS_PROT_READ);
		if (!cuda->is_arena_mapped)
			cuda->is_arena_mapped =
				map_arena(cuda, &driver, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
		if (cuda->is_arena_mapped)
			return true;
		(void) driver.release(handle);
	}
	forget_arena(cuda);
	return llm_error_set(err, LLM_ERROR_UNAVAILABLE,
						 "the GPU's driver does not map memory of another "
						 "process");
}

bool
cuda_arena_open(LlmCuda *cuda, LlmError *err)
{
	if (cuda->options.arena_bytes == 0)
		return true;
	if (cuda->options.borrowed_arena > 0)
		return borrow(cuda, err);
	if (cuda->options.lends_arena && make_lendable(cuda))
		return true;
	forget_arena(cuda);
	cuda->arena_bytes = cuda->options.arena_bytes;
	if (cudaMalloc((void **) &cuda->arena, cuda->arena_bytes) == cudaSuccess)
		return true;
	cuda->arena = NULL;
	return cuda_no_memory(err, cuda->arena_bytes, "the weights");
}

void
cuda_arena_close(LlmCuda *cuda)
{
	DriverCalls driver;

	if (!cuda->is_arena_mapped)
		(void) cudaFree(cuda->arena);
	else if (find_calls(&driver))
	{
		(void) driver.unmap((CUdeviceptr) cuda->arena, cuda->arena_bytes);
		(void) driver.free_address((CUdeviceptr) cuda->arena,
								   cuda->arena_bytes);
		(void) driver.release(cuda->arena_handle);
	}
	forget_arena(cuda);
}

int
cuda_arena_lend(LlmCompute *compute, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);
	DriverCalls driver;
	int fd = -1;

	if (cuda->is_arena_mapped && find_calls(&driver) &&
		driver.export_handle(&fd, cuda->arena_handle,
							 CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
							 0) == CUDA_SUCCESS &&
		fd >= 0)
		return fd;
	llm_error_set(err, LLM_ERROR_UNAVAILABLE,
				  "the GPU's driver does not pass memory to another process");
	return -1;
}
