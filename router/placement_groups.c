/* placement_groups: see placement_groups.h. */
#include "router/placement_groups.h"

#include "base/limits.h"

static int size_of(const int32_t *group_end, int group)
{
    return group_end[group] - (group > 0 ? group_end[group - 1] : 0);
}

static int put(int32_t *out, int n, int begin, int end)
{
    for (int expert = begin; expert < end; expert++)
        out[n++] = expert;
    return n;
}

/* whole_groups: owner[g], with n_part <= n_group. */
static void whole_groups(const int32_t *group_end, int n_group, int n_part, int32_t *owner)
{
    int32_t load[LIMIT_DOMAINS] = {0};
    for (int g = 0; g < n_group; g++)
        owner[g] = -1;
    for (int turn = 0; turn < n_group; turn++) {
        int group = -1, part = 0;
        for (int g = 0; g < n_group; g++)
            if (owner[g] < 0 && (group < 0 || size_of(group_end, g) > size_of(group_end, group)))
                group = g;
        for (int p = 1; p < n_part; p++)
            if (load[p] < load[part])
                part = p;
        owner[group] = part;
        load[part] += size_of(group_end, group);
    }
}

/* parts_each: how many parts each group has, with n_part > n_group; never more than experts. */
static void parts_each(const int32_t *group_end, int n_group, int n_part, int32_t *n_own)
{
    for (int g = 0; g < n_group; g++)
        n_own[g] = 1;
    for (int left = n_part - n_group; left > 0; left--) {
        int most = 0;
        for (int g = 1; g < n_group; g++) /* size / own, compared without division */
            if ((int64_t)size_of(group_end, g) * n_own[most] >
                (int64_t)size_of(group_end, most) * n_own[g])
                most = g;
        if (n_own[most] >= size_of(group_end, most))
            return;
        n_own[most]++;
    }
}

int placement_colocated(const int32_t *group_end, int n_group, int part, int n_part, int32_t *out)
{
    int32_t of[LIMIT_DOMAINS];
    int n = 0;
    if (n_part <= n_group) {
        whole_groups(group_end, n_group, n_part, of);
        for (int g = 0; g < n_group; g++)
            if (of[g] == part)
                n = put(out, n, group_end[g] - size_of(group_end, g), group_end[g]);
        return n;
    }
    parts_each(group_end, n_group, n_part, of);
    for (int g = 0; g < n_group; part -= of[g], g++) {
        if (part >= of[g])
            continue;
        int64_t size = size_of(group_end, g);
        int begin = group_end[g] - (int)size;
        return put(out, 0, begin + (int)(size * part / of[g]),
                   begin + (int)(size * (part + 1) / of[g]));
    }
    return 0;
}
