// SPDX-License-Identifier: Apache-2.0
/*
 * Debian 13's libelf.a (elfutils 0.192) refers to two functions of elfutils' internal library, which is not in it. They are about
 * archives, which nobody opens here: an empty tree, and nothing to free. Weak: a libelf.a that is whole has its own.
 */
__attribute__((weak)) void eu_search_tree_init(void **tree);
__attribute__((weak)) void eu_search_tree_fini(void **tree, void (*free_node)(void *));

void eu_search_tree_init(void **tree) { *tree = 0; }
void eu_search_tree_fini(void **tree, void (*free_node)(void *)) {}
