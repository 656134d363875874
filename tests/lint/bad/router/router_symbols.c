/* router_symbols: what the router must not call. */
int clock_gettime(int id, void *out);
int socket(int domain, int type, int protocol);
float router_choice(void);
float router_choice(void)
{
    return (float)(clock_gettime(0, 0) + socket(0, 0, 0));
}
