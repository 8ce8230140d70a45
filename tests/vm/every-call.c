/* Every system call, made once with harmless arguments. The arguments are the arm64 build of this program and what the
 * x86_64 build answered on a real processor. */
#include "answers.h"

static void name(int i, char *text) { strcpy(text, calls[i].name); }

static int group(int i) { return i; }

static int is_made(int i) { return NUMBER_OF(&calls[i]) >= 0; }

static int make(int i)
{
    long arguments[6] = {0};
    fill(&calls[i]);
    for (int a = 0; a < 6 && calls[i].arguments[a].name; a++)
        arguments[a] = harmless(&calls[i], a);
    return answer(NUMBER_OF(&calls[i]), arguments);
}

static int refused(int i) { return calls[i].refused; }

static const struct exception exceptions[] = {
    {"kexec_load", "the kernel says EBUSY or ENOMEM, as its memory is"},
    {"ptrace", "translated programs cannot be traced"},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    retire();
    int compared = IS_X86_64 && argc > 2;
    return answer_all(&(struct cases){CALLS, name, group, make, is_made, refused, exceptions}, compared ? argv : NULL);
}
