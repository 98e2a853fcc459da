/* Relays between a virtio-serial port and trusted applications. It sees ciphertext only, and is trusted with nothing.
 *
 * A request: five little-endian numbers of 32 bits (operation, handle, command, bytes that follow, most bytes to come
 * back), then bytes. An answer: two numbers (result, bytes that follow), then bytes. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tee_client_api.h>

enum operation { INSTALL = 1, OPEN = 2, INVOKE = 3, CLOSE = 4, HELLO = 5 };

#define MAX_SESSIONS 64
#define MAX_BYTES (64u << 20)
#define UUID_TEXT_BYTES 36
#define FOLDER "/lib/optee_armtz/"

static int port;
static TEEC_Context tee;
static TEEC_Session sessions[MAX_SESSIONS];
static char is_open[MAX_SESSIONS];

/* The port ends when the other side goes away, and so does the guest then. */
static void transfer(ssize_t (*move)(int, void *, size_t), void *bytes, size_t size)
{
    char *at = bytes;
    while (size) {
        const ssize_t moved = move(port, at, size);
        if (moved <= 0 && !(moved < 0 && errno == EINTR))
            exit(0);
        at += moved > 0 ? moved : 0;
        size -= moved > 0 ? (size_t)moved : 0;
    }
}

static ssize_t write_port(int file, void *bytes, size_t size)
{
    return write(file, bytes, size);
}

static void answer(uint32_t result, const void *bytes, uint32_t size)
{
    uint32_t head[2] = {result, size};
    transfer(write_port, head, sizeof head);
    transfer(write_port, (void *)bytes, size);
}

/* Install an application: its UUID as text, then its signed file. The answer is the SHA-256 of what lies in the file
 * system then, in hexadecimal. */
static void install(const char *bytes, uint32_t size)
{
    char path[sizeof FOLDER + UUID_TEXT_BYTES + 3] = FOLDER, command[sizeof path + 16], hash[65] = "";
    if (size < UUID_TEXT_BYTES || strspn(bytes, "0123456789abcdef-") < UUID_TEXT_BYTES) {
        answer(TEEC_ERROR_BAD_PARAMETERS, "", 0);
        return;
    }
    memcpy(path + sizeof FOLDER - 1, bytes, UUID_TEXT_BYTES);
    strcpy(path + sizeof FOLDER - 1 + UUID_TEXT_BYTES, ".ta");
    FILE *file = fopen(path, "wb");
    const size_t rest = size - UUID_TEXT_BYTES;
    int written = file && fwrite(bytes + UUID_TEXT_BYTES, 1, rest, file) == rest;
    written = file && fclose(file) == 0 && written;
    snprintf(command, sizeof command, "sha256sum %s", path);
    FILE *sum = written ? popen(command, "r") : NULL;
    const int found = sum && fscanf(sum, "%64[0-9a-f]", hash) == 1 && strlen(hash) == 64;
    if (sum)
        pclose(sum);
    answer(found ? TEEC_SUCCESS : TEEC_ERROR_STORAGE_NO_SPACE, hash, found ? 64 : 0);
}

/* Open a session with an application, named by its UUID as text; the answer is its handle. */
static void open_session(const char *text)
{
    uint32_t handle = 0, origin;
    TEEC_UUID uuid;
    uint8_t *const node = uuid.clockSeqAndNode;
    while (handle < MAX_SESSIONS && is_open[handle])
        handle++;
    if (handle == MAX_SESSIONS ||
        sscanf(text, "%8x-%4hx-%4hx-%2hhx%2hhx-%2hhx%2hhx%2hhx%2hhx%2hhx%2hhx", &uuid.timeLow, &uuid.timeMid,
               &uuid.timeHiAndVersion, node, node + 1, node + 2, node + 3, node + 4, node + 5, node + 6, node + 7) != 11) {
        answer(TEEC_ERROR_BAD_PARAMETERS, "", 0);
        return;
    }
    const TEEC_Result result = TEEC_OpenSession(&tee, &sessions[handle], &uuid, TEEC_LOGIN_PUBLIC, NULL, NULL, &origin);
    is_open[handle] = result == TEEC_SUCCESS;
    answer(result, &handle, is_open[handle] ? sizeof handle : 0);
}

static void invoke(uint32_t handle, uint32_t command, void *in, uint32_t size, uint32_t most)
{
    uint32_t origin;
    void *out = malloc(most + 1);
    TEEC_Operation operation = {0};
    operation.paramTypes = TEEC_PARAM_TYPES(TEEC_MEMREF_TEMP_INPUT, TEEC_MEMREF_TEMP_OUTPUT, TEEC_NONE, TEEC_NONE);
    operation.params[0].tmpref = (TEEC_TempMemoryReference){in, size};
    operation.params[1].tmpref = (TEEC_TempMemoryReference){out, most};
    TEEC_Result result = TEEC_ERROR_OUT_OF_MEMORY;
    if (out)
        result = TEEC_InvokeCommand(&sessions[handle], command, &operation, &origin);
    answer(result, out, result == TEEC_SUCCESS ? (uint32_t)operation.params[1].tmpref.size : 0);
    free(out);
}

int main(int count, char **arguments)
{
    if (count != 2 || (port = open(arguments[1], O_RDWR)) < 0 || TEEC_InitializeContext(NULL, &tee) != TEEC_SUCCESS)
        return 1;
    for (;;) {
        uint32_t head[5];
        transfer(read, head, sizeof head);
        if (head[1] >= MAX_SESSIONS || head[3] > MAX_BYTES || head[4] > MAX_BYTES)
            return 2;
        char *bytes = calloc(head[3] + 1, 1);
        if (!bytes)
            return 3;
        transfer(read, bytes, head[3]);
        switch (head[0]) {
        case HELLO:
            answer(TEEC_SUCCESS, "", 0);
            break;
        case INSTALL:
            install(bytes, head[3]);
            break;
        case OPEN:
            open_session(bytes);
            break;
        case INVOKE:
            if (is_open[head[1]])
                invoke(head[1], head[2], bytes, head[3], head[4]);
            else
                answer(TEEC_ERROR_BAD_STATE, "", 0);
            break;
        case CLOSE:
            if (is_open[head[1]])
                TEEC_CloseSession(&sessions[head[1]]);
            is_open[head[1]] = 0;
            answer(TEEC_SUCCESS, "", 0);
            break;
        default:
            return 4;
        }
        free(bytes);
    }
}
