/* mistakes: base reads three variables by name and no other. */
static const char *name = "SIGMOE_LOG";
static const char *a(void)
{
    return getenv("SIGMOE_LOG") ? getenv("CI") : getenv(name);
}
