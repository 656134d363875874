/* kernels_symbols: what a kernel must not call. */
void *malloc(unsigned long bytes);
int snprintf(char *out, unsigned long size, const char *format, ...);
int pthread_self(void);
void *kernel(char *out);
float router_choice(void);
void *kernel(char *out)
{
    snprintf(out, 4, "%d", pthread_self() + (int)router_choice());
    return malloc(8);
}
