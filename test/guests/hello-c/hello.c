/* A C program against wasi-libc: says who it is, its arguments and environment. `exit N` ends so, `hold` stays. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv) {
    puts("hello from hello-c");
    for (int i = 0; i < argc; i++)
        printf("arg %d %s\n", i, argv[i]);
    for (char **entry = environ; *entry; entry++)
        printf("env %s\n", *entry);
    if (argc == 3 && strcmp(argv[1], "exit") == 0)
        return atoi(argv[2]);
    if (argc == 2 && strcmp(argv[1], "hold") == 0)
        for (fflush(stdout);;)
            sleep(3600);
    return 0;
}
