/* Lets a room exist before its first source file does. */
typedef int sigmoe_empty_unit;
