/* The smallest useful program: what it costs is starting up. */
#include <stdio.h>

int main(void)
{
    puts("hello");
    return 0;
}
