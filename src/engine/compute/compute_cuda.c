/*
 * compute_cuda.c
 *	  The way to the CUDA backend: a library that is opened where it is wanted.
 *
 * Nothing of CUDA is linked into the program, so that it runs where there is
 * none.  The library lies beside the program; test programs lie two folders
 * deeper in the build folder.  Without a driver it is not even looked for.
 *
 * src/engine/compute/compute_cuda.c
 */
#include <dlfcn.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "src/engine/compute/compute.h"

#define DRIVER "libcuda.so.1"
#define LIBRARY "libllm_cuda.so"

typedef LlmCompute *(*OpenFunction)(const LlmComputeOptions *, LlmError *);
typedef bool (*DeviceFunction)(const LlmComputeOptions *, LlmDeviceInfo *,
							   LlmError *);

static bool
find_library(char *path, size_t size)
{
	static const char *const places[] = { "", "../../" };
	char program[4096];
	ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
	const char *folder;

	if (n <= 0)
		return false;
	program[n] = '\0';
	folder = dirname(program);
	for (int i = 0; i < 2; i++)
	{
		if (snprintf(path, size, "%s/%s" LIBRARY, folder, places[i]) <
				(int) size &&
			access(path, R_OK) == 0)
			return true;
	}
	return false;
}

/* It stays open: what CUDA starts does not end before the program does. */
static void *
open_library(LlmError *err)
{
	static void *library;
	char path[4200];

	if (library != NULL)
		return library;
	if (dlopen(DRIVER, RTLD_NOW | RTLD_LOCAL) == NULL)
	{
		llm_error_set(err, LLM_ERROR_UNAVAILABLE,
					  "no GPU driver (" DRIVER ") was found");
		return NULL;
	}
	if (!find_library(path, sizeof(path)))
	{
		llm_error_set(err, LLM_ERROR_UNAVAILABLE,
					  "this build has no CUDA backend (" LIBRARY ")");
		return NULL;
	}
	library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (library == NULL)
		llm_error_set(err, LLM_ERROR_UNAVAILABLE,
					  "the CUDA backend cannot be loaded: %s", dlerror());
	return library;
}

static void *
find_function(const char *name, LlmError *err)
{
	void *library = open_library(err);
	void *function;

	if (library == NULL)
		return NULL;
	function = dlsym(library, name);
	if (function == NULL)
		llm_error_set(err, LLM_ERROR_UNAVAILABLE,
					  "the CUDA backend has no function \"%s\"", name);
	return function;
}

bool
llm_compute_cuda_info(const LlmComputeOptions *options, LlmDeviceInfo *info,
					  LlmError *err)
{
	DeviceFunction function =
		(DeviceFunction) find_function("llm_compute_cuda_device", err);

	return function != NULL && function(options, info, err);
}

LlmCompute *
llm_compute_cuda_load(const LlmComputeOptions *options, LlmError *err)
{
	OpenFunction function =
		(OpenFunction) find_function("llm_compute_cuda_open", err);

	return function == NULL ? NULL : function(options, err);
}
